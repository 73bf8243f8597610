// The reference on the device: random fills, y = x W in more than fp32's precision, and the comparison.
// Plain on purpose; it is what every kernel is held against. Formulas: reference.cuh.
#include "cuda/reference.cuh"

// Elements per block in x and y of a tile of outputs, and how much of K is summed in fp32.
enum { TILE = 64, CHUNK = 64, SIDE = 16, PER_THREAD = TILE / SIDE, THREADS = SIDE * SIDE };

// One thread a value.
extern "C" __global__ void reference_fill_values(struct reference_fill fill) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < fill.count) ((unsigned short *)fill.to)[i] = reference_random_word(&fill, i);
}

// One thread for 8 bytes; the bytes of a random word in their order of significance.
extern "C" __global__ void reference_fill_bits(struct reference_fill fill) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long bits = reference_random(fill.seed, i);
    unsigned char *to = (unsigned char *)fill.to;
    for (unsigned long long b = 8 * i; b < 8 * i + 8 && b < fill.count; b++, bits >>= 8) to[b] = (unsigned char)bits;
}

// y (N, K): one thread a weight.
extern "C" __global__ void reference_dequantize(struct reference_problem p) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (unsigned long long)p.n * p.k) return;
    p.y[i] = reference_weight(&p, (int)(i % p.k), (int)(i / p.k));
}

// Loads x[m0.., k0..] and W[k0.., n0..] as fp32 into shared memory, k outermost; rows beyond M are zero.
static __device__ inline void load_tiles(const struct reference_problem &p, float (*xs)[TILE + 1],
                                         float (*ws)[TILE + 1], int m0, int n0, int k0) {
    for (int i = threadIdx.x; i < TILE * CHUNK; i += THREADS) {
        int row = i / CHUNK, k = i % CHUNK, m = m0 + row;
        xs[k][row] = m < p.m ? reference_x(&p, m, k0 + k) : 0.0f;
        ws[k][row] = reference_weight(&p, k0 + k, n0 + row);
    }
}

// Column j of thread tx: j = 0, 1 and 2, 3 are eight columns apart, as an epilogue wants its pairs.
static __device__ inline int column(int tx, int j) {
    return 32 * (j / 2) + 16 * (tx / 8) + 8 * (j % 2) + tx % 8;
}

// Adds the products of one chunk of K in fp32 to the thread's 4 x 4 sums in double.
static __device__ inline void add_chunk(const float (*xs)[TILE + 1], const float (*ws)[TILE + 1], int tx, int ty,
                                        double (&sum)[PER_THREAD][PER_THREAD]) {
    float part[PER_THREAD][PER_THREAD] = {};
    for (int k = 0; k < CHUNK; k++)
        for (int i = 0; i < PER_THREAD; i++)
            for (int j = 0; j < PER_THREAD; j++) part[i][j] += xs[k][ty + SIDE * i] * ws[k][column(tx, j)];
    for (int i = 0; i < PER_THREAD; i++)
        for (int j = 0; j < PER_THREAD; j++) sum[i][j] += part[i][j];
}

// y (M, N): a block makes 64 x 64 sums, blocks of one column of tiles follow each other in M. Thread
// (tx, ty) of 16 x 16 holds rows ty + 16i, so that a warp reads neighbouring words.
extern "C" __global__ void __launch_bounds__(THREADS) reference_gemm(struct reference_problem p) {
    __shared__ float xs[CHUNK][TILE + 1], ws[CHUNK][TILE + 1];
    int tiles_m = (p.m + TILE - 1) / TILE;
    int m0 = (int)(blockIdx.x % tiles_m) * TILE, n0 = (int)(blockIdx.x / tiles_m) * TILE;
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    double sum[PER_THREAD][PER_THREAD] = {};
    for (int k0 = 0; k0 < p.k; k0 += CHUNK) {
        load_tiles(p, xs, ws, m0, n0, k0);
        __syncthreads();
        add_chunk(xs, ws, tx, ty, sum);
        __syncthreads();
    }
    for (int i = 0; i < PER_THREAD; i++) {
        int m = m0 + ty + SIDE * i;
        if (m >= p.m) continue;
        double factor = reference_factor(&p, m);
        for (int j = 0; j < PER_THREAD; j += 2)
            reference_store(&p, m, n0 + column(tx, j), factor * sum[i][j], factor * sum[i][j + 1]);
    }
}

// Adds b to a; the first bad element is the least index of the two.
static __device__ inline void merge(struct reference_sums &a, const struct reference_sums &b) {
    a.difference += b.difference;
    a.reference += b.reference;
    a.bad += b.bad;
    if (b.first_bad < a.first_bad) a.first_bad = b.first_bad;
}

// Each block sums a strided share of the elements and leaves one struct for the host to add up.
extern "C" __global__ void __launch_bounds__(THREADS) reference_compare(struct reference_comparison c) {
    __shared__ struct reference_sums shared[THREADS];
    struct reference_sums mine = {0, 0, 0, c.count};
    for (unsigned long long i = (unsigned long long)blockIdx.x * THREADS + threadIdx.x; i < c.count;
         i += (unsigned long long)gridDim.x * THREADS) {
        const unsigned exponent = c.bf16 ? 0x7f80 : 0x7c00;
        if ((c.y[i] & exponent) == exponent) {
            merge(mine, {0, 0, 1, i});
            continue;
        }
        double reference = c.reference[i], difference = reference_value(c.y[i], c.bf16) - reference;
        merge(mine, {difference * difference, reference * reference, 0, c.count});
    }
    shared[threadIdx.x] = mine;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) merge(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    if (threadIdx.x == 0) c.sums[blockIdx.x] = shared[0];
}
