#include "bench/decoder/sample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

struct candidate {
    float logit;
    int id;
};

struct sampler {
    struct sampling sampling;
    uint64_t state;
    int size;
    bool *seen;
    struct candidate *candidates;
};

struct sampler *sampler_create(const struct sampling *sampling, int size) {
    struct sampler *sampler = malloc(sizeof *sampler);
    if (!sampler) return NULL;
    *sampler = (struct sampler){.sampling = *sampling, .state = sampling->seed, .size = size};
    sampler->seen = calloc((size_t)size, sizeof *sampler->seen);
    sampler->candidates = malloc((size_t)size * sizeof *sampler->candidates);
    if (sampler->seen && sampler->candidates) return sampler;
    sampler_destroy(sampler);
    return NULL;
}

void sampler_destroy(struct sampler *sampler) {
    if (!sampler) return;
    free(sampler->seen);
    free(sampler->candidates);
    free(sampler);
}

void sampler_see(struct sampler *sampler, int id) {
    if (id >= 0 && id < sampler->size) sampler->seen[id] = true;
}

/* Uniform in [0, 1) with 53 bits: SplitMix64 (Steele, Lea, Flood 2014). */
static double uniform(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int check_finite(const float *logits, int size, struct error *error) {
    for (int id = 0; id < size; id++)
        if (!isfinite(logits[id])) return error_set(error, "the logit of token %d is %f", id, logits[id]);
    return 0;
}

/* The logit after the repetition penalty. */
static float penalized(const struct sampler *sampler, const float *logits, int id) {
    float penalty = (float)sampler->sampling.repetition_penalty;
    if (!sampler->seen[id]) return logits[id];
    return logits[id] < 0 ? logits[id] * penalty : logits[id] / penalty;
}

static int largest(const struct sampler *sampler, const float *logits) {
    int best = 0;
    for (int id = 1; id < sampler->size; id++)
        if (penalized(sampler, logits, id) > penalized(sampler, logits, best)) best = id;
    return best;
}

static int by_logit(const void *left, const void *right) {
    const struct candidate *a = left, *b = right;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Moves the `keep` best to the front, in no order: quickselect around the middle element. */
static void select_best(struct candidate *list, int count, int keep) {
    int low = 0, high = count - 1;
    while (low < high) {
        struct candidate pivot = list[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (by_logit(&list[i], &pivot) < 0) i++;
            while (by_logit(&list[j], &pivot) > 0) j--;
            if (i > j) break;
            struct candidate swap = list[i];
            list[i++] = list[j];
            list[j--] = swap;
        }
        if (keep - 1 <= j)
            high = j;
        else if (keep - 1 >= i)
            low = i;
        else
            return;
    }
}

/* Keeps the k best and whatever equals the last of them; returns how many. */
static int top_k(struct candidate *list, int count, int k) {
    if (k <= 0 || k >= count) return count;
    select_best(list, count, k);
    float least = list[0].logit;
    for (int i = 1; i < k; i++)
        if (list[i].logit < least) least = list[i].logit;
    int kept = k;
    for (int i = k; i < count; i++)
        if (list[i].logit == least) list[kept++] = list[i];
    return kept;
}

/* Not normalised; the largest logit comes first. Only the difference is divided by the temperature: a logit could
 * overflow. */
static double weight(const struct candidate *list, int i, double temperature) {
    return exp(((double)list[i].logit - list[0].logit) / temperature);
}

static double weights_sum(const struct candidate *list, int count, double temperature) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += weight(list, i, temperature);
    return sum;
}

/* Of a sorted list: the shortest head whose probability reaches p. */
static int top_p(const struct candidate *list, int count, double p, double temperature) {
    if (p >= 1) return count;
    double limit = p * weights_sum(list, count, temperature), sum = 0;
    for (int i = 0; i < count; i++) {
        sum += weight(list, i, temperature);
        if (sum >= limit) return i + 1;
    }
    return count;
}

static int draw(struct sampler *sampler, const struct candidate *list, int count) {
    double temperature = sampler->sampling.temperature;
    double left = uniform(&sampler->state) * weights_sum(list, count, temperature);
    for (int i = 0; i < count; i++) {
        left -= weight(list, i, temperature);
        if (left < 0) return list[i].id;
    }
    return list[count - 1].id;
}

static int sample(struct sampler *sampler, const float *logits) {
    struct candidate *list = sampler->candidates;
    int count = sampler->size;
    for (int id = 0; id < count; id++) list[id] = (struct candidate){penalized(sampler, logits, id), id};
    count = top_k(list, count, sampler->sampling.top_k);
    qsort(list, (size_t)count, sizeof *list, by_logit);
    count = top_p(list, count, sampler->sampling.top_p, sampler->sampling.temperature);
    return draw(sampler, list, count);
}

int sampler_next(struct sampler *sampler, const float *logits, struct error *error) {
    if (check_finite(logits, sampler->size, error)) return -1;
    int id = sampler->sampling.temperature > 0 ? sample(sampler, logits) : largest(sampler, logits);
    sampler_see(sampler, id);
    return id;
}
