/* Choosing tokens in plain C: the oracle of sample.cu, to the bit. */
#include "bench/decoder/sample.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "bench/decoder/ops.h"
#include "kernels/half.h"

bool sampling_greedy(const struct sampling *sampling) {
    return sampling->temperature <= 0 && sampling->repetition_penalty == 1;
}

struct ops_sampling sampling_parameters(const struct sampling *sampling) {
    bool greedy = sampling->temperature <= 0;
    return (struct ops_sampling){
        .seed = sampling->seed,
        .top_p = (uint64_t)(sampling->top_p * 0x1p32),
        .scale = greedy ? FLT_MAX : (float)fmin(1.4426950408889634 / sampling->temperature, FLT_MAX),
        .penalty = (float)sampling->repetition_penalty,
        .top_k = sampling->top_k > 0 ? sampling->top_k : INT32_MAX,
        .greedy = greedy,
    };
}

/* --- bins: the values that fp16 has, the largest first --- */

struct row {
    const uint16_t *logits;
    uint8_t *seen;
    float penalty;
};

/* Of an id's logit, penalised if the id was seen; 0 if it is not finite. */
static int bin_of(const struct row *row, int id) {
    uint16_t logit = row->logits[id];
    if ((logit & 0x7c00) == 0x7c00) return 0;
    if (row->seen[id / 8] >> id % 8 & 1) {
        float value = half_to_float(logit);
        value = value < 0 ? value * row->penalty : value / row->penalty;
        logit = half_from_float(fminf(fmaxf(value, -65504), 65504));
    }
    if (logit == 0x8000) logit = 0;
    return logit & 0x8000 ? logit : logit ^ 0x7fff;
}

static float value_of(int bin) {
    return half_to_float((uint16_t)(bin & 0x8000 ? bin : bin ^ 0x7fff));
}

/* Bins up to `last`, each with as many ids, which weigh the same. */
struct bins {
    const uint32_t *counts;
    float most, scale;
    int last;
};

/* Of each id in a bin: 2^40 * 2^((value - most) * scale), rounded down. Every step is exact or rounded once, so that it
 * is the same on every machine; the polynomial is 2^fraction to 7e-8. */
static uint64_t weight(const struct bins *bins, int bin) {
    float power = 0.000208179146f, exponent = (value_of(bin) - bins->most) * bins->scale;
    if (bin > bins->last || exponent < -40) return 0;
    float whole = floorf(exponent), fraction = exponent - whole;
    power = fmaf(power, fraction, 0.00126921665f);
    power = fmaf(power, fraction, 0.0096521955f);
    power = fmaf(power, fraction, 0.0554960221f);
    power = fmaf(power, fraction, 0.240227208f);
    power = fmaf(power, fraction, 0.693147182f);
    power = fmaf(power, fraction, 1);
    return (uint64_t)(power * 0x1p40f) >> (int)-whole;
}

/* That of the largest, and of all where only their number matters: scale 0. */
static const uint64_t one = (uint64_t)1 << 40;

/* Where the sum of weights reaches a target: with so many ids of a bin, behind all of those before it. */
struct place {
    int bin;
    uint64_t ids, sum; /* theirs too */
};

static struct place reach(const struct bins *bins, uint64_t target) {
    uint64_t before = 0;
    for (int bin = 0;; bin++) {
        uint64_t each = bins->counts[bin] ? weight(bins, bin) : 0, all = bins->counts[bin] * each;
        if (before + all < target) {
            before += all;
            continue;
        }
        uint64_t ids = (target - before + each - 1) / each;
        return (struct place){bin, ids, before + ids * each};
    }
}

static uint64_t total(const struct bins *bins) {
    uint64_t sum = 0;
    for (int bin = 0; bin <= bins->last; bin++) sum += bins->counts[bin] ? bins->counts[bin] * weight(bins, bin) : 0;
    return sum;
}

/* --- the choice --- */

/* sum * part / 2^32, rounded down; the part is at most 2^32. */
static uint64_t share(uint64_t sum, uint64_t part) {
    return (sum >> 32) * part + ((sum & UINT32_MAX) * part >> 32);
}

/* SplitMix64 (Steele, Lea, Flood 2014): the upper half of the number that follows `position` others. */
static uint64_t draw(uint64_t seed, int position) {
    uint64_t z = seed + ((uint64_t)position + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) >> 32;
}

/* The bin, and which of its ids. */
static struct place choose(const struct ops_sampling *sampling, const uint32_t *counts, int limit, int position) {
    struct bins bins = {counts, 0, 0, OPS_BINS - 1};
    int k = sampling->top_k < limit ? sampling->top_k : limit, last = reach(&bins, (uint64_t)k * one).bin;
    bins = (struct bins){counts, value_of(reach(&bins, one).bin), sampling->scale, last};
    uint64_t most = share(total(&bins), sampling->top_p), kept = reach(&bins, most ? most : 1).sum;
    return reach(&bins, 1 + share(kept, sampling->greedy ? 0 : draw(sampling->seed, position)));
}

int32_t sample_row(const struct ops_sample *a, int index) {
    const struct ops_sequence *sequence = &a->sequences[index];
    const struct ops_sampling *sampling = &a->sampling[sequence->slot];
    const struct row row = {a->logits + (size_t)index * (size_t)a->width,
                            a->seen + (size_t)sequence->slot * ops_seen_bytes(a->width), sampling->penalty};
    uint32_t *counts = a->counts + (size_t)index * OPS_BINS;
    struct place place = {0};
    int32_t id = -1;
    for (int i = 0; i < a->limit; i++) counts[bin_of(&row, i)]++;
    if (!counts[0]) place = choose(sampling, counts, a->limit, sequence->position);
    while (place.ids)
        if (bin_of(&row, ++id) == place.bin) place.ids--;
    if (id >= 0) row.seen[id / 8] |= (uint8_t)(1 << id % 8);
    memset(counts, 0, OPS_BINS * sizeof *counts);
    return id;
}
