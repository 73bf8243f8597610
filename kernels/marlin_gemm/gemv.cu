/* y (M, N) = x (M, K) W for one token (rows of more are tiles of their own) with x, y row-major, fp16 or bf16, and W
 * 4-bit codes in Marlin's layout, fp32 sums (sm_80 on; SPLIT_K > 1 from sm_90 on). The partition is drawn in
 * cuda/skinny.cuh. Needs K % 128 == 0 and N % 64 == 0; any M.
 *
 * At one token making fp16 of codes takes most of the instructions. Here codes stay integers, for the matrix unit of
 * bytes, and x becomes 23-bit integers over one power of two a chunk, as three signed digits: x = unit * (d0 + 256 d1 +
 * 65536 d2). Sums of digits times codes are exact, and so is x unless it is 2^11 times smaller than the chunk's
 * largest.
 *
 * Of a word of codes one mask leaves four codes, another four times 16, which are summed up apart:
 *
 *      byte                      0      1      2      3        A product (multiply_bytes) has 8 columns where one token
 *      column of W, from 16 j    r    r + 8    r    r + 8      needs one: column 2 d + h is digit d of x for the bytes
 *      k & 15, low nibble        q      q    q + 1  q + 1      of column r (h = 0) or r + 8 (h = 1) and zero for the
 *              high nibble     q + 8  q + 8  q + 9  q + 9      others, so that it sums up one column of W.
 *
 * with r = lane / 4 and q = 2 * (lane % 4).
 *
 * With NORM, x is multiplied by its gain before it becomes integers, and the sums by what the mean of its squares asks
 * for in the end: a block sees all of k then (SPLIT_K == 1). */
constexpr int EXTRA_BYTES = 128 * 4; /* the chunk's integers */

#include "marlin_gemm/slot.cuh"

/* Bits of the integers: |x| < 2^e becomes less than 2^(INTEGER_BITS). */
constexpr int INTEGER_BITS = 22;

/* 2^exponent, -126 to 127. */
__device__ __forceinline__ float power_of_two(int exponent) {
    return float_from_bits((unsigned)(127 + exponent) << 23);
}

/* A chunk's x as integers. */
struct integers {
    float unit;         /* x = unit * integer; NaN if one of x is infinite or NaN */
    int sum[RUN_COUNT]; /* of each run */
};

/* What a lane has of a chunk of x, or of its gains: k = 16 * (lane / 4) + q, q + 1, q + 8, q + 9. */
struct four {
    float at[4];
};

struct alignas(8) float_pair {
    float first, second;
};

__device__ __forceinline__ struct four load_x(const struct place &p, unsigned slice) {
    const unsigned pairs = slice + p.lane / 4 * 32 + p.lane % 4 * 4;
    struct four x;
    values_to_floats(load_shared(pairs), x.at[0], x.at[1]);
    values_to_floats(load_shared(pairs + 16), x.at[2], x.at[3]);
    return x;
}

/* The norm of x: the gains of the next chunk, which are constant and thus loaded long before they are needed, and the
 * sum of a lane's squares so far. */
struct norm {
    struct four gain;
    int next, end; /* chunks */
    float squares;
};

__device__ __forceinline__ void load_gain(struct norm &norm, const struct place &p, const float *gain) {
    if (!NORM || norm.next == norm.end) return;
    const struct float_pair *from = (const struct float_pair *)gain + norm.next++ * (CHUNK / 2);
    from += p.lane / 4 * 8 + p.lane % 4;
    norm.gain.at[0] = from[0].first, norm.gain.at[1] = from[0].second;
    norm.gain.at[2] = from[4].first, norm.gain.at[3] = from[4].second;
}

/* Those of a chunk of x times their gains. */
__device__ __forceinline__ void apply_gain(struct norm &norm, struct four &x, const struct place &p,
                                           const float *gain) {
    if (!NORM) return;
#pragma unroll
    for (int i = 0; i < 4; i++) norm.squares += x.at[i] * x.at[i], x.at[i] *= norm.gain.at[i];
    load_gain(norm, p, gain);
}

/* Leaves the chunk as three digits in the bytes of words, [k / 16][lane % 4] times k = q, q + 1, q + 8, q + 9. */
__device__ __forceinline__ struct integers leave_digits(unsigned slot, const struct place &p, const struct four &x) {
    unsigned largest = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) largest = max(largest, bits_from_float(x.at[i]) & 0x7fffffff);
    largest = warp_max(largest);
    const int exponent = max((int)(largest >> 23) - 126, -100); /* |x| < 2^exponent */
    const float scale = power_of_two(INTEGER_BITS - exponent);
    const float rounder = 12582912.f; /* 1.5 * 2^23: what is added to it ends in its lowest bits */
    struct integers integers;
    unsigned digits[4];
    int sum = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int integer = (int)(bits_from_float(x.at[i] * scale + rounder) - bits_from_float(rounder));
        sum += integer;
        digits[i] = ((unsigned)integer + 0x00808080) ^ 0x00808080; /* signed bytes; the uppermost is zero */
    }
    store_shared4(slot + EXTRA + p.lane * 16, make_uint4(digits[0], digits[1], digits[2], digits[3]));
#pragma unroll
    for (int run = 0; run < RUN_COUNT; run++) integers.sum[run] = warp_sum(p.lane / 4 * 16 / RUN == run ? sum : 0);
    integers.unit = largest < 0x7f800000 ? power_of_two(exponent - INTEGER_BITS) : float_from_bits(0x7fffffff);
    __syncwarp();
    return integers;
}

/* Which bytes of two words of digits a lane's column of the products has: select_bytes()'s order. */
__device__ __forceinline__ unsigned digit_order(int lane) {
    const unsigned column = lane / 4, digit = min(column / 2, 2u); /* columns 6 and 7 are not used */
    const unsigned first = digit, second = 4 + digit, none = 3;
    return column % 2 ? none | first << 4 | none << 8 | second << 12 : first | none << 4 | second << 8 | none << 12;
}

/* Sums of codes times digits: [32 columns][codes, 16 times codes][multiply_bytes()'s sums]. */
struct products {
    int at[2][2][4];
};

/* Adds 32 of k, two Marlin tiles. */
__device__ __forceinline__ void add_tiles(struct products &products, const struct place &p, unsigned slot, int tile,
                                          unsigned order) {
    uint4 words[2];
    unsigned x[2][2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        words[h] = load_shared4(slot + (tile + h) * 512 + p.lane * 16);
        const uint4 digits = load_shared4(slot + EXTRA + (tile + h) * 64 + p.lane % 4 * 16);
        x[0][h] = select_bytes(digits.x, digits.y, order), x[1][h] = select_bytes(digits.z, digits.w, order);
    }
#pragma unroll
    for (int high = 0; high < 2; high++) {
        const unsigned mask = high ? 0xf0f0f0f0 : 0x0f0f0f0f;
        const unsigned first[4] = {words[0].x & mask, words[0].y & mask, words[1].x & mask, words[1].y & mask};
        const unsigned second[4] = {words[0].z & mask, words[0].w & mask, words[1].z & mask, words[1].w & mask};
        multiply_bytes(products.at[0][high], first, x[high][0], x[high][1]);
        multiply_bytes(products.at[1][high], second, x[high][0], x[high][1]);
    }
}

/* A lane's sums, of digit lane % 4: [16 columns][column lane / 4, and 8 further]. */
struct digit_sums {
    float at[4][2];
};

/* Adds a chunk to the sums: unit * scale * (sum of x q - zero point * sum of x), the latter with the first digit. */
__device__ __forceinline__ void add_chunk(struct digit_sums &sums, const struct place &p, unsigned slot,
                                          const struct four &chunk, unsigned zeros, unsigned order) {
    const int digit = p.lane % 4;
    const struct integers x = leave_digits(slot, p, chunk);
    const float weight = digit < 3 ? x.unit * power_of_two(8 * digit - 4) : 0; /* products count sixteenths */
#pragma unroll
    for (int run = 0; run < RUN_COUNT; run++) {
        struct products products = {};
#pragma unroll
        for (int tile = run * RUN / 16; tile < (run + 1) * RUN / 16; tile += 2)
            add_tiles(products, p, slot, tile, order);
        const struct run_columns columns = load_run(p, slot, run, zeros);
        const float less = digit == 0 ? -x.unit * (float)x.sum[run] : 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float scale[2], zero[2];
            find_column_pair(columns, j, scale, zero);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int at = j % 2 * 2 + i, sum = 16 * products.at[j / 2][0][at] + products.at[j / 2][1][at];
                sums.at[j][i] += scale[i] * (weight * (float)sum + less * zero[i]);
            }
        }
    }
}

/* The sums over the digits, as multiply() would leave the one token. */
__device__ __forceinline__ struct sums add_digits(const struct digit_sums &own, const struct place &p,
                                                  const struct arguments &a) {
    struct sums sums = {};
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float scale[2] = {1, 1};
        if (!GROUP && p.n0 < a.n) load_scales(a.operands.scales, p.n0, p.lane, j, scale[0], scale[1]);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float pair = own.at[j][i] + other_lane(own.at[j][i], 1);
            sums.at[j][0][2 * i] = scale[i] * (pair + other_lane(pair, 2));
        }
    }
    return sums;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) marlin_gemm(const __grid_constant__ struct arguments a) {
    const struct place p = find_place(a.m, a.n, a.k);
    struct digit_sums sums = {};
    struct norm norm = {{}, p.first, p.first + p.count, 0};
    announce_items(p);
    load_gain(norm, p, a.operands.gain);
    const unsigned zeros = common_zeros(p, a), order = digit_order(p.lane);
    run_chunks(
        p, a, [&](unsigned slot, int chunk) { request_slot(slot, p, a, chunk); },
        [&](unsigned slot, unsigned slice) {
            struct four x = load_x(p, slice);
            apply_gain(norm, x, p, a.operands.gain);
            add_chunk(sums, p, slot, x, zeros, order);
        });
    if (NORM) leave_squares(p, norm.squares);
    store_sums<NORM>(add_digits(sums, p, a), p, a);
}
