	.file	"TVMMod"                # a vpdpbusd in a comment
	.section	.rodata
.LC0:	.asciz	"vpdpbusd %zmm0, %zmm1, %zmm2 # \" ; vfmadd231ps"
	/* vmulps %zmm1, %zmm2, %zmm3
	   jmp .LBB0_1 */
	.text
	.globl	vpdpbusd_kernel
	.type	vpdpbusd_kernel,@function
vpdpbusd_kernel:
	pushq	%rbp
	subq	$72, %rsp
	vmovdqu64	%zmm7, 8(%rsp)          # outside of all loops
	leaq	lambda(%rip), %rdi
.LBB0_1:                                # loop of depth 1
	xorl	%ecx, %ecx
	vfmadd231ps	%zmm1, %zmm2, %zmm3
.LBB0_2: vpbroadcastd (%rsi,%rcx), %zmm0
	vpdpbusd	(%rdi,%rcx), %zmm0, %zmm4 ; vpdpbusd %zmm1, %zmm0, %zmm5
	vpaddd	8(%rsp), %zmm5, %zmm5
	movl	-4(%rbp), %eax
	addq	$4, %rcx
	cmpq	$64, %rcx
	jb	.LBB0_2
	vcvtdq2ps	%zmm4, %zmm4
	vmulps	%zmm4, %zmm6, %zmm4
	decq	%rdx
	jne	.LBB0_1
	retq
.Lend:
	.size	vpdpbusd_kernel, .Lend-vpdpbusd_kernel
vpdpbusd = 17
vfmadd231ps:
	.type	lambda,@function
lambda:
	pushq	%rbp
	movq	%rsp, %rbp
	movl	-4(%rbp), %eax
	{vex}	vpdpbusd	%ymm1, %ymm0, %ymm2
	jmp	vpdpbusd_kernel
	.size	lambda, .-lambda
	.file	"TVMMod"
	.type	lambda,@function
lambda:
	ret
