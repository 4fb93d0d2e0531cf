; ModuleID = 'first'
source_filename = "float32.c"
target triple = "x86_64-unknown-linux-gnu"
; fmul int8 float32: a comment is no instruction
; define void @ghost() { ret void }
@.str = private constant [32 x i8] c"expects int8 \22; not uint8 int32\00"
@"a; int16 name" = global i32 0

define float @two_loops(ptr %x, ptr %int8_data, i32 %n) {
entry:
  br label %outer
outer:                                            ; preds = %entry, %tail: int8
  %i = phi i32 [ 0, %entry ], [ %i.next, %tail ]
  br label %inner
inner:
  %j = phi i32 [ 0, %outer ], [ %j.next, %inner ]
  %sum = phi <4 x float> [ zeroinitializer, %outer ], [ %sum.next, %inner ]
  %v = load <4 x float>, ptr %x, align 16
  %p = fmul <4 x float> %v, %v
  %sum.next = fadd <4 x float> %sum, %p
  %j.next = add i32 %j, 1
  %j.end = icmp eq i32 %j.next, 10
  br i1 %j.end, label %tail, label %inner
tail:
  store <4 x float> %sum.next, ptr %int8_data
  %i.next = add i32 %i, 1
  %i.end = icmp eq i32 %i.next, %n
  br i1 %i.end, label %exit, label %outer
exit:
  %one = fmul float 1.0, 2.0
  ret float %one
}

; ModuleID = 'second'
declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <64 x i8>, <64 x i8>)

define <16 x i32> @two_loops(<16 x i32> %acc, <64 x i8> %a, <64 x i8> %b) !dbg !2 {
  %1 = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32> %acc, <64 x i8> %a, <64 x i8> %b)
  ret <16 x i32> %1
}

!llvm.dbg.cu = !{!0}
!llvm.module.flags = !{!4}
!0 = distinct !DICompileUnit(language: DW_LANG_C, file: !1, producer: "uint8 ; int8", isOptimized: true, runtimeVersion: 0, emissionKind: FullDebug)
!1 = !DIFile(filename: "x.c", directory: ".")
!2 = distinct !DISubprogram(name: "two_loops", scope: !1, file: !1, type: !3, spFlags: DISPFlagDefinition, unit: !0)
!3 = !DISubroutineType(types: !{null})
!4 = !{i32 2, !"Debug Info Version", i32 3}
