/* AWQ words (K, N/8) to fp16 weights (N, K) row-major: y[n,k] = (q - z) * scale (sm_80 on).
 *
 * A block owns TILE_K x TILE_N weights. It reads rows of words, 16 bytes (32 columns of one k) a thread, and
 * lays the words down transposed: [TILE_N / 8 words][TILE_K]. Then a thread takes 8 successive k of one word
 * column, decodes them and writes eight rows of 16 bytes; neighbouring threads continue the rows, so that
 * both sides of the transposition move whole lines.
 * Needs K % 128 == 0 and N % 64 == 0. ZEROS tells whether zero points are stored (else 8). */
#include "cuda/ptx.cuh"

constexpr int WORDS = TILE_N / 8;
/* Columns of words are 16 bytes longer, which spreads the transposed stores over the banks. */
constexpr int PITCH = TILE_K + 4;
constexpr int READS = TILE_K * WORDS / 4;
constexpr int ITEMS = TILE_K / 8 * WORDS;

/* Scales (q - z) of one word by its scales: pairs of columns 0 1, 2 3, 4 5, 6 7, the order of AWQ's nibbles
 * 0 4, 1 5, 2 6, 3 7. 1024 + q is a bit pattern, and 1024 + q - (1024 + z) is exact. */
__device__ __forceinline__ void decode(unsigned (&pairs)[4], unsigned word, unsigned zeros, uint4 scales) {
    const unsigned scale[4] = {scales.x, scales.y, scales.z, scales.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const unsigned q = and_or(word >> 4 * i, 0x000f000f, 0x64006400);
        const unsigned z = and_or(zeros >> 4 * i, 0x000f000f, 0x64006400);
        pairs[i] = half2_mul(half2_sub(q, z), scale[i]);
    }
}

/* Reads the block's words into `tile`, transposed. */
__device__ __forceinline__ void load_words(unsigned *tile, const struct arguments &a, int k0, int word0) {
    const int words = a.n / 8;
    uint4 read[(READS + THREADS - 1) / THREADS];
#pragma unroll
    for (int i = 0; i < READS; i += THREADS) {
        const int index = i + threadIdx.x, k = index / (WORDS / 4), word = index % (WORDS / 4) * 4;
        if (index < READS && k0 + k < a.k && word0 + word < words)
            read[i / THREADS] =
                *(const uint4 *)((const unsigned *)a.operands.weights + (size_t)(k0 + k) * words + word0 + word);
    }
#pragma unroll
    for (int i = 0; i < READS; i += THREADS) {
        const int index = i + threadIdx.x, k = index / (WORDS / 4), word = index % (WORDS / 4) * 4;
        if (index >= READS || k0 + k >= a.k || word0 + word >= words) continue;
        unsigned *to = tile + word * PITCH + k;
        const uint4 four = read[i / THREADS];
        to[0] = four.x, to[PITCH] = four.y, to[2 * PITCH] = four.z, to[3 * PITCH] = four.w;
    }
}

/* Decodes 8 successive k of a word column and writes its eight rows of y. */
__device__ __forceinline__ void store_columns(const unsigned *tile, const struct arguments &a, int k, int word) {
    const int group = k / a.group;
    const uint4 scales = ((const uint4 *)a.operands.scales)[(size_t)group * (a.n / 8) + word];
    const unsigned zeros = ZEROS ? ((const unsigned *)a.operands.zeros)[(size_t)group * (a.n / 8) + word] : 0x88888888;
    const uint4 low = *(const uint4 *)tile, high = *(const uint4 *)(tile + 4);
    const unsigned words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    unsigned pairs[8][4];
#pragma unroll
    for (int i = 0; i < 8; i++) decode(pairs[i], words[i], zeros, scales);
    unsigned short *y = (unsigned short *)a.operands.y + (size_t)word * 8 * a.k + k;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint4 even, odd;
        even.x = low_halves(pairs[0][i], pairs[1][i]), odd.x = high_halves(pairs[0][i], pairs[1][i]);
        even.y = low_halves(pairs[2][i], pairs[3][i]), odd.y = high_halves(pairs[2][i], pairs[3][i]);
        even.z = low_halves(pairs[4][i], pairs[5][i]), odd.z = high_halves(pairs[4][i], pairs[5][i]);
        even.w = low_halves(pairs[6][i], pairs[7][i]), odd.w = high_halves(pairs[6][i], pairs[7][i]);
        *(uint4 *)(y + (size_t)(2 * i) * a.k) = even;
        *(uint4 *)(y + (size_t)(2 * i + 1) * a.k) = odd;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) awq_dequant(const __grid_constant__ struct arguments a) {
    __shared__ uint4 memory[WORDS * PITCH / 4];
    unsigned *tile = (unsigned *)memory;
    const int tiles_k = (a.k + TILE_K - 1) / TILE_K;
    const int k0 = blockIdx.x % tiles_k * TILE_K, word0 = blockIdx.x / tiles_k * WORDS;
    programmatic_launch();
    load_words(tile, a, k0, word0);
    __syncthreads();
    /* Words, scales and zero points nobody writes; y the launch ahead may still be reading. */
    programmatic_wait();
#pragma unroll
    for (int i = 0; i < ITEMS; i += THREADS) {
        const int index = i + threadIdx.x, k = index % (TILE_K / 8) * 8, word = index / (TILE_K / 8);
        if (index < ITEMS && k0 + k < a.k && word0 + word < a.n / 8)
            store_columns(tile + word * PITCH + k, a, k0 + k, word0 + word);
    }
}
