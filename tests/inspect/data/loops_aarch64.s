	.file	"TVMMod"
	.type	kernel,@function
kernel:                                 // sdot in a comment
	stp	x29, x30, [sp, #-16]!
	mov	x8, #64
.LBB0_1:
	ldr	q0, [sp, #32]
	sdot	v2.4s, v0.16b, v1.16b
	usdot	v3.4s, v0.16b, v1.16b
	smlal	v4.4s, v0.4h, v1.4h
	mla	v5.4s, v0.4s, v1.4s
	fmla	v6.4s, v0.4s, v1.4s
	subs	x8, x8, #4
	b.ne	.LBB0_1
	scvtf	v2.4s, v2.4s
	ret
