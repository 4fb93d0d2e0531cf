; What multiplies and accumulates, and what only looks like it.
declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <64 x i8>, <64 x i8>)
declare <16 x i32> @llvm.x86.avx512.pmaddw.d.512(<32 x i16>, <32 x i16>)
declare <32 x i16> @llvm.x86.avx512.pmaddubs.w.512(<64 x i8>, <64 x i8>)
declare <64 x i8> @llvm.x86.avx512.permvar.qi.512(<64 x i8>, <64 x i8>)
declare <16 x i32> @llvm.ctpop.v16i32(<16 x i32>)
declare <4 x float> @llvm.fmuladd.v4f32(<4 x float>, <4 x float>, <4 x float>)
declare i32 @llvm.smin.i32(i32, i32)

; 12 passes of 64, then requantization: a product of a converted sum, and a bias.
define void @dot_and_requantize(ptr %x, ptr %w, ptr %out, <16 x float> %scale, <16 x float> %bias) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 3, %entry ], [ %i.next, %loop ]
  %acc = phi <16 x i32> [ zeroinitializer, %entry ], [ %sum, %loop ]
  %a = load <64 x i8>, ptr %x
  %b = load <64 x i8>, ptr %w
  %sum = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32> %acc, <64 x i8> %a, <64 x i8> %b)
  %i.next = add nuw i64 %i, 2
  %more = icmp ult i64 %i.next, 26
  br i1 %more, label %loop, label %exit
exit:
  %real = sitofp <16 x i32> %sum to <16 x float>
  %scaled = fmul <16 x float> %real, %scale
  %shifted = fadd <16 x float> %scaled, %bias
  store <16 x float> %shifted, ptr %out
  ret void
}

; vpmaddubsw multiplies, vpmaddwd by ones widens: 64 in each of 5 passes.
define <16 x i32> @saturating_pairs(ptr %x, ptr %w) {
entry:
  br label %loop
loop:
  %i = phi i32 [ 5, %entry ], [ %i.next, %loop ]
  %acc = phi <16 x i32> [ zeroinitializer, %entry ], [ %sum, %loop ]
  %a = load <64 x i8>, ptr %x
  %b = load <64 x i8>, ptr %w
  %pairs = call <32 x i16> @llvm.x86.avx512.pmaddubs.w.512(<64 x i8> %a, <64 x i8> %b)
  %wide = call <16 x i32> @llvm.x86.avx512.pmaddw.d.512(<32 x i16> %pairs, <32 x i16> splat (i16 1))
  %sum = add <16 x i32> %acc, %wide
  %i.next = add i32 %i, -1
  %end = icmp eq i32 %i.next, 0
  br i1 %end, label %exit, label %loop
exit:
  ret <16 x i32> %sum
}

; A float accumulator in memory, fed by bytes: a float multiply-accumulate all the same, 4 x 6 x 7.
define void @float_of_bytes(ptr %x, ptr %w, ptr %y) {
entry:
  br label %outer
outer:
  %i = phi i32 [ 0, %entry ], [ %i.next, %latch ]
  br label %inner
inner:
  %j = phi i32 [ 0, %outer ], [ %j.next, %inner ]
  %q = load <4 x i8>, ptr %x
  %wide = sext <4 x i8> %q to <4 x i32>
  %real = sitofp <4 x i32> %wide to <4 x float>
  %b = load <4 x float>, ptr %w
  %old = load <4 x float>, ptr %y
  %new = call <4 x float> @llvm.fmuladd.v4f32(<4 x float> %real, <4 x float> %b, <4 x float> %old)
  store <4 x float> %new, ptr %y
  %j.next = add i32 %j, 1
  %j.end = icmp sgt i32 %j.next, 6
  br i1 %j.end, label %latch, label %inner
latch:
  %i.next = add i32 %i, 1
  %i.end = icmp eq i32 %i.next, 6
  br i1 %i.end, label %exit, label %outer
exit:
  ret void
}

; Unrolled: two products of one sum. The third is a product by a constant, the fourth is alone.
define void @unrolled(ptr %x, ptr %out) {
  %a = load i32, ptr %x
  %at = getelementptr i8, ptr %x, i64 4
  %b = load i32, ptr %at
  %p = mul i32 %a, %b
  %r = mul i32 %a, %a
  %s = add i32 %p, %r
  %c = mul i32 %b, 12
  %t = add i32 %s, %c
  store i32 %t, ptr %out
  %alone = mul i32 %b, %b
  store i32 %alone, ptr %at
  ret void
}

; Addresses: products of indices, summed.
define i32 @address(ptr %x, i32 %i, i32 %j, i32 %n) {
  %row = mul i32 %i, %n
  %column = mul i32 %j, %n
  %at = add i32 %row, %column
  %p = getelementptr i32, ptr %x, i32 %at
  %v = load i32, ptr %p
  ret i32 %v
}

; A table of its own, and one that only shuffles; and bits that two words have in common.
define void @tables_and_bits(ptr %x, ptr %w, ptr %out) {
  %table = load <64 x i8>, ptr %x
  %index = load <64 x i8>, ptr %w
  %one = call <64 x i8> @llvm.x86.avx512.permvar.qi.512(<64 x i8> %table, <64 x i8> %index)
  %two = call <64 x i8> @llvm.x86.avx512.permvar.qi.512(<64 x i8> %index, <64 x i8> %table)
  %mixed = call <64 x i8> @llvm.x86.avx512.permvar.qi.512(<64 x i8> %index, <64 x i8> zeroinitializer)
  %sum = add <64 x i8> %one, %two
  %total = add <64 x i8> %sum, %mixed
  store <64 x i8> %total, ptr %out
  %a = load <16 x i32>, ptr %x
  %b = load <16 x i32>, ptr %w
  %both = and <16 x i32> %a, %b
  %count = call <16 x i32> @llvm.ctpop.v16i32(<16 x i32> %both)
  store <16 x i32> %count, ptr %out
  ret void
}

; A parallel region: 10 rows, and in row r only columns from r on: 10 + 9 + ... + 1 passes.
@launch = external global ptr
define i32 @parallel(ptr %x, ptr %y) {
  %closure = alloca [16 x i8]
  store ptr %x, ptr %closure
  %at = getelementptr inbounds i8, ptr %closure, i64 8
  store i32 10, ptr %at
  %f = load ptr, ptr @launch
  %r = call i32 %f(ptr @region, ptr %closure, i32 0)
  ret i32 %r
}
define private i32 @region(i32 %task_id, ptr %env, ptr %closure) {
entry:
  %x = load ptr, ptr %closure
  %num_at = getelementptr inbounds nuw i8, ptr %env, i64 8
  %tasks = load i32, ptr %num_at
  %rows_at = getelementptr inbounds nuw i8, ptr %closure, i64 8
  %rows = load i32, ptr %rows_at
  %more = add i32 %rows, %tasks
  %less = add i32 %more, -1
  %each = sdiv i32 %less, %tasks
  %begin = mul i32 %each, %task_id
  %next = add i32 %task_id, 1
  %stop = mul i32 %each, %next
  %end = call i32 @llvm.smin.i32(i32 %stop, i32 %rows)
  %any = icmp slt i32 %begin, %end
  br i1 %any, label %row, label %exit
row:
  %r = phi i32 [ %begin, %entry ], [ %r.next, %latch ]
  br label %column
column:
  %c = phi i32 [ %r, %row ], [ %c.next, %column ]
  %acc = phi float [ 0.0, %row ], [ %sum, %column ]
  %v = load float, ptr %x
  %p = fmul float %v, %v
  %sum = fadd float %acc, %p
  %c.next = add i32 %c, 1
  %c.end = icmp uge i32 %c.next, 10
  br i1 %c.end, label %latch, label %column
latch:
  store float %sum, ptr %x
  %r.next = add i32 %r, 1
  %r.more = icmp slt i32 %r.next, %end
  br i1 %r.more, label %row, label %exit
exit:
  ret i32 0
}

; The bound of this loop is data.
define float @unknown(ptr %x, ptr %n) {
entry:
  %bound = load i32, ptr %n
  br label %loop
loop:
  %i = phi i32 [ 0, %entry ], [ %i.next, %loop ]
  %acc = phi float [ 0.0, %entry ], [ %sum, %loop ]
  %v = load float, ptr %x
  %p = fmul float %v, %v
  %sum = fadd float %acc, %p
  %i.next = add i32 %i, 1
  %more = icmp slt i32 %i.next, %bound
  br i1 %more, label %loop, label %exit
exit:
  ret float %sum
}
