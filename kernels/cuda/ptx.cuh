/* The instructions and the half-precision arithmetic that the kernels use, wrapped once, without CUDA's
 * headers: NVRTC then needs nothing but the program itself. Pairs of fp16 or bf16 travel as 32-bit words, the lower
 * index in the lower half; single ones as 16-bit words. Shared-memory addresses are 32-bit. */
#ifndef TILEBOOK_PTX_CUH
#define TILEBOOK_PTX_CUH

/* struct operands and struct arguments of kernels/kernel.h, as the entries take them by value. */
struct operands {
    const void *x, *weights, *scales, *zeros, *addend;
    void *y, *workspace;
    const float *gain;
    float epsilon;
};
struct arguments {
    struct operands operands;
    int m, n, k, group;
    int overlaps;
};

/* The workspace begins with this many bytes of counters, zero between launches (kernels/kernel.h). */
constexpr int WORKSPACE_COUNTER_BYTES = 65536;

/* The 32-bit address that shared-memory instructions take. */
__device__ __forceinline__ unsigned shared_address(const void *pointer) {
    return (unsigned)__cvta_generic_to_shared(pointer);
}

/* --- fp16 --- */

/* Two floats, rounded to nearest, as a pair. */
__device__ __forceinline__ unsigned half2_from_floats(float low, float high) {
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/* The two values of a pair. */
__device__ __forceinline__ void half2_to_floats(unsigned pair, float &low, float &high) {
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
        : "=f"(low), "=f"(high)
        : "r"(pair));
}

/* One value. */
__device__ __forceinline__ float half_to_float(unsigned short half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

/* --- values: x, addend, y and what the matrix unit multiplies; fp16, or bf16 with -DBF16 (kernels/kernel.h) --- */

#ifdef BF16
#define VALUE "bf16"
constexpr bool VALUES_ARE_BF16 = true;
#else
#define VALUE "f16"
constexpr bool VALUES_ARE_BF16 = false;
#endif

/* Two floats, rounded to nearest, as a pair. */
__device__ __forceinline__ unsigned values_from_floats(float low, float high) {
    unsigned pair;
    asm("cvt.rn." VALUE "x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/* The two values of a pair. bf16 is the upper half of a float. */
__device__ __forceinline__ void values_to_floats(unsigned pair, float &low, float &high) {
    if (VALUES_ARE_BF16)
        low = __uint_as_float(pair << 16), high = __uint_as_float(pair & 0xffff0000);
    else
        half2_to_floats(pair, low, high);
}

/* A pair of fp16, rounded. */
__device__ __forceinline__ unsigned values_from_half2(unsigned pair) {
    float low, high;
    half2_to_floats(pair, low, high);
    return values_from_floats(low, high);
}

/* One value. */
__device__ __forceinline__ float value_to_float(unsigned short value) {
    return VALUES_ARE_BF16 ? __uint_as_float((unsigned)value << 16) : half_to_float(value);
}

/* a * b + c rounded once, both halves, of bf16. */
__device__ __forceinline__ unsigned bf16x2_fma(unsigned a, unsigned b, unsigned c) {
    unsigned pair;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(c));
    return pair;
}

/* --- arithmetic --- */

/* value / (1 + e^-value), to a few units of fp32's last place; 0 where e^-value overflows. */
__device__ __forceinline__ float silu(float value) {
    return __fdividef(value, 1 + __expf(-value));
}

/* a - b, both halves. */
__device__ __forceinline__ unsigned half2_sub(unsigned a, unsigned b) {
    unsigned pair;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
}

/* a * b, both halves. */
__device__ __forceinline__ unsigned half2_mul(unsigned a, unsigned b) {
    unsigned pair;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
}

/* a * b + c rounded once, both halves. */
__device__ __forceinline__ unsigned half2_fma(unsigned a, unsigned b, unsigned c) {
    unsigned pair;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(c));
    return pair;
}

/* --- bits --- */

/* (a & b) | c in one instruction. */
__device__ __forceinline__ unsigned and_or(unsigned a, unsigned b, unsigned c) {
    unsigned word;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(word) : "r"(a), "r"(b), "r"(c));
    return word;
}

/* The low halves of a and b as a pair; then their high halves. */
__device__ __forceinline__ unsigned low_halves(unsigned a, unsigned b) {
    return __byte_perm(a, b, 0x5410);
}
__device__ __forceinline__ unsigned high_halves(unsigned a, unsigned b) {
    return __byte_perm(a, b, 0x7632);
}

/* Four of the eight bytes of a (0 to 3) and b (4 to 7): nibble i of `order` says which becomes byte i. */
__device__ __forceinline__ unsigned select_bytes(unsigned a, unsigned b, unsigned order) {
    return __byte_perm(a, b, order);
}

__device__ __forceinline__ float float_from_bits(unsigned bits) {
    return __uint_as_float(bits);
}
__device__ __forceinline__ unsigned bits_from_float(float value) {
    return __float_as_uint(value);
}

/* --- from memory to shared memory, asynchronously --- */

/* 16 bytes, both addresses aligned to 16; zeros, and nothing read, unless `inside`. Without a cache hint: where
 * the shared address is uniform in part, ptxas 13.0 gives cp.async with L2::cache_hint an invalid encoding on
 * sm_90a, which stops the kernel with an illegal instruction. */
__device__ __forceinline__ void copy_async(unsigned to, const void *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                 "r"(inside ? 16 : 0)
                 : "memory");
}

/* Ends this thread's group of copies (an empty one counts too). */
__device__ __forceinline__ void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most `PENDING` of this thread's newest groups are under way. */
template <int PENDING> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* --- shared memory --- */

__device__ __forceinline__ unsigned load_shared(unsigned address) {
    unsigned word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
    return word;
}

__device__ __forceinline__ void load_shared2(unsigned address, unsigned (&words)[2]) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "r"(address));
}

__device__ __forceinline__ uint4 load_shared4(unsigned address) {
    uint4 words;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                 : "r"(address)
                 : "memory");
    return words;
}

__device__ __forceinline__ void store_shared4(unsigned address, uint4 words) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(words.x), "r"(words.y), "r"(words.z),
                 "r"(words.w)
                 : "memory");
}

/* Four 8x8 matrices of values: lane l gives the address of row l % 8 of matrix l / 8 (16 bytes) and receives, of
 * every matrix, elements 2 * (l % 4) and the next of row l / 4. */
__device__ __forceinline__ void load_matrices(unsigned address, unsigned (&pairs)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(address)
                 : "memory");
}

/* --- matrix unit --- */

/* c (16 x 8, fp32) += a (16 x 16) b (16 x 8), of values. Lane l holds, with r = l / 4 and q = 2 * (l % 4):
 * a[0..3] rows r, r + 8, r, r + 8, columns q, q, q + 8, q + 8 and the next; b[0..1] rows q, q + 8 and the
 * next, column r; c[0..1] row r, c[2..3] row r + 8, columns q and q + 1. */
__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." VALUE "." VALUE ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* c (16 x 8, int32) += a (16 x 32, unsigned bytes) b (32 x 8, signed bytes). Lane l holds, with r = l / 4 and
 * q = 4 * (l % 4): a[0..3] rows r, r + 8, r, r + 8, columns q, q, q + 16, q + 16 and the next three; b[0..1] rows q,
 * q + 16 and the next three, column r; c as multiply() has it. */
__device__ __forceinline__ void multiply_bytes(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* --- matrix unit of a warpgroup, four warps from a multiple of four on (sm_90a) --- */

/* What multiply_group() takes as b: rows of 64 values (128 bytes) in shared memory from a multiple of 1024 bytes
 * on, of which chunk c (16 bytes) of row r lies at c ^ (r & 7). Adding 2 to it means 16 columns further on. */
__device__ __forceinline__ unsigned long long swizzled_matrix(unsigned address) {
    return 1ull << 62 | 64ull << 32 | 1ull << 16 | address >> 4; /* swizzle 128; 1024 bytes every 8 rows */
}

/* The names of a product's sums in its instruction, and the sums. */
#define NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define NAMES_16 NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define NAMES_32 NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_48 NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define NAMES_64 NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_80 NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define NAMES_96 NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define NAMES_112                                                                                                      \
    NAMES_96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define NAMES_128                                                                                                      \
    NAMES_112 ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define SUMS_8(s, i)                                                                                                   \
    "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3]), "+f"(s[i + 4]), "+f"(s[i + 5]), "+f"(s[i + 6]),        \
        "+f"(s[i + 7])
#define SUMS_16(s, i) SUMS_8(s, i), SUMS_8(s, i + 8)
#define SUMS_32(s, i) SUMS_16(s, i), SUMS_16(s, i + 16)
#define SUMS_48(s, i) SUMS_32(s, i), SUMS_16(s, i + 32)
#define SUMS_64(s, i) SUMS_32(s, i), SUMS_32(s, i + 32)
#define SUMS_80(s, i) SUMS_64(s, i), SUMS_16(s, i + 64)
#define SUMS_96(s, i) SUMS_64(s, i), SUMS_32(s, i + 64)
#define SUMS_112(s, i) SUMS_96(s, i), SUMS_16(s, i + 96)
#define SUMS_128(s, i) SUMS_64(s, i), SUMS_64(s, i + 64)
/* Both products for so many tokens, with half as many sums; the other numbers go on from there. */
#define PRODUCTS(TOKENS, N, A0, A1, A2, A3, B)                                                                         \
    __device__ __forceinline__ void multiply_group(float(&sums)[N], const unsigned(&a)[4], unsigned long long b) {     \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #TOKENS "k16.f32." VALUE "." VALUE " {" NAMES_##N             \
                     "}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", 1, 1, 1, 0;"                               \
                     : SUMS_##N(sums, 0)                                                                               \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                            \
    }                                                                                                                  \
    __device__ __forceinline__ void multiply_tiles(float(&sums)[N], unsigned long long a, unsigned long long b) {      \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #TOKENS "k16.f32." VALUE "." VALUE " {" NAMES_##N             \
                     "}, %" #A0 ", %" #A1 ", 1, 1, 1, 0, 0;"                                                           \
                     : SUMS_##N(sums, 0)                                                                               \
                     : "l"(a), "l"(b));                                                                                \
    }

/* multiply_group(): sums (64 x tokens, fp32) += a (64 x 16) b^T (tokens x 16), asynchronously: until
 * multiply_group_wait() neither may be touched. Warp w has rows 16 w..16 w + 15 of a as multiply() has them, and
 * sums[4 t..4 t + 3] is multiply()'s c for tokens 8 t..8 t + 7.
 * multiply_tiles(): the same with a, too, as swizzled_matrix() has it; adding 512 means 64 rows further on. */
PRODUCTS(16, 8, 8, 9, 10, 11, 12)
PRODUCTS(32, 16, 16, 17, 18, 19, 20)
PRODUCTS(64, 32, 32, 33, 34, 35, 36)
PRODUCTS(96, 48, 48, 49, 50, 51, 52)
PRODUCTS(128, 64, 64, 65, 66, 67, 68)
PRODUCTS(160, 80, 80, 81, 82, 83, 84)
PRODUCTS(192, 96, 96, 97, 98, 99, 100)
PRODUCTS(224, 112, 112, 113, 114, 115, 116)
PRODUCTS(256, 128, 128, 129, 130, 131, 132)

/* Orders what was written to registers before with the multiply_group() that follow. */
__device__ __forceinline__ void multiply_group_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* Ends a group of multiply_group(). */
__device__ __forceinline__ void multiply_group_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most `PENDING` of the newest groups are under way. */
template <int PENDING> __device__ __forceinline__ void multiply_group_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Keeps the compiler from moving what uses the sums to before the wait that this follows. */
template <int FLOATS> __device__ __forceinline__ void hold(float (&sums)[FLOATS]) {
#pragma unroll
    for (int i = 0; i < FLOATS; i++) asm volatile("" : "+f"(sums[i])::"memory");
}

/* Before the barrier that hands shared memory, written by this thread, to multiply_group(). */
__device__ __forceinline__ void publish_to_matrix_unit() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* All warps of a warpgroup: from here on its threads have so many registers, fewer or more than before; more when
 * others have released as many. For a launch whose threads all have the same number, and one block an SM. */
template <int REGISTERS> __device__ __forceinline__ void release_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS> __device__ __forceinline__ void claim_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/* --- between warps --- */

/* The first lane's value: what all lanes have anyway, but now the compiler knows. */
__device__ __forceinline__ unsigned uniform(unsigned value) {
    return __shfl_sync(~0u, value, 0);
}

/* The largest value, and the sum, over the lanes. */
__device__ __forceinline__ unsigned warp_max(unsigned value) {
    return __reduce_max_sync(~0u, value);
}
__device__ __forceinline__ int warp_sum(int value) {
    return __reduce_add_sync(~0u, value);
}

/* What the lane whose number differs in the bits of `mask` has. */
__device__ __forceinline__ float other_lane(float value, int mask) {
    return __shfl_xor_sync(~0u, value, mask);
}
__device__ __forceinline__ unsigned other_lane(unsigned value, int mask) {
    return __shfl_xor_sync(~0u, value, mask);
}

/* Waits for so many threads of the block, whole warps, at barrier 1..15 (0 is that of __syncthreads). */
__device__ __forceinline__ void barrier(unsigned number, unsigned threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

/* --- between the blocks of a cluster (sm_90) --- */

/* Every thread of every block arrives, then waits for all others. It publishes nothing. */
__device__ __forceinline__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* Where another block of the cluster has what lies at `address` of this block's shared memory. */
__device__ __forceinline__ unsigned cluster_address(unsigned address, unsigned rank) {
    unsigned there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

/* One thread of a block: 8 bytes of shared memory at `transfer` will count so many bytes that send_remote4()
 * brings; other blocks know it after the cluster's barrier. */
__device__ __forceinline__ void transfer_open(unsigned transfer, unsigned bytes) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\t"
                 "fence.mbarrier_init.release.cluster;\n\t"
                 "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(transfer),
                 "r"(bytes)
                 : "memory");
}

/* Waits for all of them and sees them. */
__device__ __forceinline__ void transfer_wait(unsigned transfer) {
    asm volatile("{\n\t.reg .pred done;\n"
                 "again:\n\tmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], 0;\n\t"
                 "@!done bra again;\n\t}" ::"r"(transfer)
                 : "memory");
}

/* Into shared memory of a block of the cluster, which has opened the transfer that counts it and waits for it. */
__device__ __forceinline__ void send_remote4(unsigned to, float4 value, unsigned transfer) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(transfer)
                 : "memory");
}

/* --- bulk copies and the barriers that count them, between a warp that requests and those that use (sm_90) --- */

/* What struct device_tensor_map of kernels/device.h holds. */
struct alignas(64) tensor_map {
    unsigned long long opaque[16];
};

/* One thread: 8 bytes of shared memory become a barrier whose phases take so many arrivals each; the others may use it
 * behind a barrier of the block. */
__device__ __forceinline__ void phase_open(unsigned barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n\tfence.mbarrier_init.release.cluster;" ::"r"(barrier),
                 "r"(arrivals)
                 : "memory");
}

/* One arrival; what the thread read and wrote before is done for those who wait. */
__device__ __forceinline__ void phase_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* One arrival, with which the phase lasts until so many bytes more have come. */
__device__ __forceinline__ void phase_expect(unsigned barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/* All lanes of a warp: waits for the end of a phase, of which those with even numbers have parity 0. */
__device__ __forceinline__ void phase_wait(unsigned barrier, unsigned parity) {
    asm volatile("{\n\t.reg .pred done;\n"
                 "again:\n\tmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                 "@!done bra again;\n\t}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* One thread: requests the box that begins at this row and column; `to` is a multiple of 128 (1024 if swizzled). */
__device__ __forceinline__ void copy_box(unsigned to, const struct tensor_map &map, int row, int column,
                                         unsigned barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
        "[%4];" ::"r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}

/* The same into those blocks of the cluster whose bits are set, at the same place of each and counted by its own
 * barrier there. */
__device__ __forceinline__ void copy_box_to_all(unsigned to, const struct tensor_map &map, int row, int column,
                                                unsigned barrier, unsigned blocks) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"(&map), "r"(column), "r"(row), "r"(barrier), "h"((unsigned short)blocks)
                 : "memory");
}

/* One arrival at the barrier that another block of the cluster has at this address, or this block itself: for a thread
 * that has read alone (a release to the cluster would wait for all its stores, a microsecond each time). */
__device__ __forceinline__ void phase_arrive_at(unsigned barrier, unsigned rank) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(cluster_address(barrier, rank)) : "memory");
}

/* --- between launches (programmatic dependent launch, sm_90) --- */

/* Waits for the launch ahead and sees what it wrote; nothing where launches do not overlap. */
__device__ __forceinline__ void programmatic_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Asks for `bytes` in L2, where what is written later is seen all the same, so that it may come before
 * programmatic_wait; address and bytes are multiples of 16. Nothing before sm_90. */
__device__ __forceinline__ void prefetch_cache(const void *from, int bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(from)), "r"(bytes)
                 : "memory");
#endif
}

/* Lets the launch behind start as soon as every block has called this or ended. */
__device__ __forceinline__ void programmatic_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* 16 bytes that are read once and never written during the launch; 16-byte aligned. */
__device__ __forceinline__ uint4 load_streaming4(const void *from) {
    uint4 words;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                 : "l"(__cvta_generic_to_global(from)));
    return words;
}

/* --- between blocks --- */

/* Adds one; the caller's block (after a barrier) publishes what it wrote and sees what others published. */
__device__ __forceinline__ unsigned count_arrival(unsigned *counter) {
    unsigned before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(__cvta_generic_to_global(counter))
                 : "memory");
    return before;
}

/* One warp: waits until so many have come. For launches whose blocks all run at a time. */
__device__ __forceinline__ void wait_for_count(const unsigned *counter, unsigned count) {
    unsigned now;
    do
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                     : "=r"(now)
                     : "l"(__cvta_generic_to_global(counter))
                     : "memory");
    while (now < count);
}

/* Reads past L1, where another block's values may be stale. */
__device__ __forceinline__ float4 load_published(const float4 *from) {
    float4 value;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "l"(__cvta_generic_to_global(from))
                 : "memory");
    return value;
}

#endif
