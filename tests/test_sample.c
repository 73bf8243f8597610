/* Choosing tokens, and turning their bytes into text. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/decoder/ops.h"
#include "bench/decoder/sample.h"
#include "bench/decoder/stream.h"
#include "kernels/half.h"

static const struct sampling greedy = {.temperature = 0, .top_p = 1, .repetition_penalty = 1};
static struct ops cpu;
static struct error error;

static int open_cpu(void **state) {
    (void)state;
    struct device *device;
    return device_open("cpu", &device, &error) || ops_open(device, 64, 64, KV_FP16, &cpu, &error);
}

static int close_cpu(void **state) {
    (void)state;
    device_close(cpu.device);
    return 0;
}

enum { ROWS = 4, MOST = 1200 };

/* Row i is the sequence of slot ROWS - 1 - i; all have the same logits and sampling. */
struct chooser {
    uint16_t logits[ROWS * MOST];
    uint32_t *counts;
    struct ops_sampling sampling[ROWS];
    uint8_t seen[ROWS * MOST / 8];
    struct ops_sequence sequences[ROWS];
    int32_t ring[OPS_RING * ROWS];
    int rows, size;
};

/* What lies behind `size` would be chosen, were it allowed. */
static void open_chooser(struct chooser *chooser, const struct sampling *sampling, const float *logits, int size,
                         int rows) {
    *chooser = (struct chooser){.rows = rows, .size = size, .counts = calloc(ROWS * OPS_BINS, sizeof(uint32_t))};
    assert_non_null(chooser->counts);
    for (int i = 0; i < ROWS; i++) {
        chooser->sampling[i] = sampling_parameters(sampling);
        chooser->sequences[i].slot = ROWS - 1 - i;
        for (int id = 0; id < MOST; id++)
            chooser->logits[i * MOST + id] = half_from_float(id < size ? logits[id] : 60000);
    }
}

/* Each row's token goes to `ids`. */
static void choose_rows(struct chooser *c, int32_t *ids) {
    struct ops_sample a = {.logits = c->logits,
                           .counts = c->counts,
                           .sampling = c->sampling,
                           .seen = c->seen,
                           .sequences = c->sequences,
                           .ring = c->ring,
                           .rows = c->rows,
                           .width = MOST,
                           .limit = c->size};
    int position = c->sequences[0].position, step = c->sequences[0].step;
    assert_int_equal(cpu.functions->sample(&cpu, &a, &error), 0);
    for (int row = 0; row < c->rows; row++) {
        ids[row] = c->sequences[row].token;
        assert_int_equal(c->ring[step % OPS_RING * c->rows + row], ids[row]);
        assert_int_equal(c->sequences[row].position, position + 1);
        assert_int_equal(c->sequences[row].step, step + 1);
    }
}

static void close_chooser(struct chooser *chooser) {
    for (int i = 0; i < ROWS * OPS_BINS; i++)
        if (chooser->counts[i]) fail_msg("count %d is not zero", i);
    free(chooser->counts);
}

static int choose_next(struct chooser *chooser) {
    int32_t ids[ROWS];
    choose_rows(chooser, ids);
    return ids[0];
}

/* The first draw of a sequence that has seen `seen` (-1: nothing). */
static int choose(struct sampling sampling, const float *logits, int size, int seen) {
    struct chooser chooser;
    open_chooser(&chooser, &sampling, logits, size, 1);
    if (seen >= 0) chooser.seen[(ROWS - 1) * MOST / 8 + seen / 8] = (uint8_t)(1 << seen % 8);
    int id = choose_next(&chooser);
    close_chooser(&chooser);
    return id;
}

/* How often each of `size` ids comes in `draws`. */
static void count_draws(struct sampling sampling, const float *logits, int size, int draws, int *counts) {
    struct chooser chooser;
    open_chooser(&chooser, &sampling, logits, size, 1);
    memset(counts, 0, (size_t)size * sizeof *counts);
    for (int i = 0; i < draws; i++) {
        int id = choose_next(&chooser);
        assert_in_range(id, 0, size - 1);
        counts[id]++;
    }
    close_chooser(&chooser);
}

static void without_a_temperature_the_largest_and_the_lowest_of_equals(void **state) {
    (void)state;
    const float logits[] = {1, 5, 3, 5, 9}, zeros[] = {-1, -0.0f, 0, -0.0f};
    assert_int_equal(choose(greedy, logits, 5, -1), 4);
    assert_int_equal(choose(greedy, logits, 4, -1), 1);
    assert_int_equal(choose(greedy, zeros, 4, -1), 1);
    assert_true(sampling_greedy(&greedy));
    assert_false(sampling_greedy(&(struct sampling){.temperature = 0.1, .top_p = 1, .repetition_penalty = 1}));
    assert_false(sampling_greedy(&(struct sampling){.top_p = 1, .repetition_penalty = 1.1}));
}

static void the_penalty_divides_above_zero_and_multiplies_below(void **state) {
    (void)state;
    struct sampling sampling = greedy;
    sampling.repetition_penalty = 2;
    const float positive[] = {3, 5, 2.4f}, negative[] = {-3, -2, -9}, large[] = {-60000, -65504};
    assert_int_equal(choose(sampling, positive, 3, 1), 0);
    assert_int_equal(choose(sampling, positive, 3, 0), 1);
    assert_int_equal(choose(sampling, negative, 3, 1), 0);
    /* It stays finite, and equal. */
    assert_int_equal(choose(sampling, large, 2, 0), 0);
    sampling.repetition_penalty = 0.5;
    assert_int_equal(choose(sampling, positive, 3, 2), 1);
    assert_int_equal(choose(sampling, positive, 3, 0), 0);
}

static void chosen_ids_are_penalized_too(void **state) {
    (void)state;
    struct sampling sampling = greedy;
    sampling.repetition_penalty = 2;
    const float logits[] = {3, 5, 2};
    static const int expected[] = {1, 0, 1, 2};
    struct chooser chooser;
    open_chooser(&chooser, &sampling, logits, 3, 1);
    for (int i = 0; i < 3; i++) assert_int_equal(choose_next(&chooser), expected[i]);
    close_chooser(&chooser);
}

static void draws_follow_the_softmax(void **state) {
    (void)state;
    struct sampling sampling = {.temperature = 2, .top_p = 1, .repetition_penalty = 1, .seed = 7};
    /* After division by the temperature: 1/7, 2/7, 4/7. */
    const float logits[] = {0, 2 * 0.6931472f, 4 * 0.6931472f};
    int counts[3];
    count_draws(sampling, logits, 3, 7000, counts);
    for (int i = 0; i < 3; i++) assert_in_range(counts[i], (1000 << i) - 150, (1000 << i) + 150);
}

/* Pearson's sum over many ids stays within five of its deviations. */
static void draws_of_many_ids_follow_the_softmax(void **state) {
    (void)state;
    enum { SIZE = 100, DRAWS = 5000 };
    struct sampling sampling = {.temperature = 0.8, .top_p = 1, .repetition_penalty = 1, .seed = 11};
    float logits[SIZE];
    double sum = 0, pearson = 0;
    int counts[SIZE];
    for (int i = 0; i < SIZE; i++) {
        logits[i] = half_to_float(half_from_float((float)(i * 7919 % SIZE) / 40));
        sum += exp(logits[i] / sampling.temperature);
    }
    count_draws(sampling, logits, SIZE, DRAWS, counts);
    for (int i = 0; i < SIZE; i++) {
        double expected = DRAWS * exp(logits[i] / sampling.temperature) / sum;
        pearson += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    if (!(fabs(pearson - (SIZE - 1)) <= 5 * sqrt(2.0 * (SIZE - 1)))) fail_msg("Pearson's sum is %g", pearson);
}

/* Logits divided by these are infinite, or 0 / 0 in fp32. */
static void the_least_temperatures_are_greedy(void **state) {
    (void)state;
    static const double temperatures[] = {1e-38, 1e-60, 1e-310};
    const float logits[] = {0, 2, 3, -1};
    int counts[4];
    for (int i = 0; i < 3; i++) {
        struct sampling sampling = {.temperature = temperatures[i], .top_p = 0.9, .repetition_penalty = 1, .top_k = 3};
        count_draws(sampling, logits, 4, 100, counts);
        assert_int_equal(counts[2], 100);
    }
}

static void top_k_keeps_ties_with_the_last(void **state) {
    (void)state;
    struct sampling sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_k = 2};
    const float logits[] = {1, 2, 3, 2, 1.9f};
    int counts[5];
    count_draws(sampling, logits, 5, 1000, counts);
    assert_int_equal(counts[0] + counts[4], 0);
    assert_true(counts[1] > 50 && counts[2] > 50 && counts[3] > 50);
    sampling.top_k = 1;
    count_draws(sampling, logits, 5, 100, counts);
    assert_int_equal(counts[2], 100);
    sampling.top_k = 1 << 30;
    count_draws(sampling, logits, 5, 1000, counts);
    for (int i = 0; i < 5; i++) assert_true(counts[i] > 20);
}

static void top_p_keeps_the_token_that_crosses(void **state) {
    (void)state;
    struct sampling sampling = {.temperature = 1, .top_p = 0.6, .repetition_penalty = 1};
    const float logits[] = {logf(0.2f), logf(0.5f), logf(0.3f)}, equal[] = {1, 2, 2, 2, 2};
    int counts[5];
    count_draws(sampling, logits, 3, 1000, counts);
    assert_int_equal(counts[0], 0);
    assert_true(counts[1] > 50 && counts[2] > 50);
    static const double least[] = {0, 1e-300, 1e-3};
    for (int i = 0; i < 3; i++) {
        sampling.top_p = least[i];
        count_draws(sampling, logits, 3, 100, counts);
        assert_int_equal(counts[1], 100);
    }
    /* Of equals the lowest ids. */
    sampling = (struct sampling){.temperature = 1, .top_p = 0.5, .repetition_penalty = 1, .top_k = 4};
    count_draws(sampling, equal, 5, 1000, counts);
    assert_int_equal(counts[1] + counts[2], 1000);
    assert_true(counts[1] > 400 && counts[2] > 400);
}

/* Against the definition, by brute force. */
static void top_k_of_many_is_the_k_largest(void **state) {
    (void)state;
    enum { SIZE = 1000, K = 37 };
    static float logits[SIZE];
    static int counts[SIZE];
    struct sampling sampling = {.temperature = 50, .top_p = 1, .repetition_penalty = 1, .top_k = K};
    for (int i = 0; i < SIZE; i++) logits[i] = (float)(i * 7919 % SIZE) / 8;
    count_draws(sampling, logits, SIZE, 1500, counts);
    for (int i = 0; i < SIZE; i++) assert_int_equal(counts[i] > 0, logits[i] >= (float)(SIZE - K) / 8);
}

/* --- against a sorted list in double --- */

struct candidate {
    double logit, weight;
    int id;
};

static int by_logit(const void *left, const void *right) {
    const struct candidate *a = left, *b = right;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* The one that a number in [0, 1) falls on. */
static int draw_sorted(const struct sampling *sampling, const float *logits, int size, double number) {
    static struct candidate list[MOST];
    double sum = 0, kept = 0;
    int count = sampling->top_k && sampling->top_k < size ? sampling->top_k : size, last = 0;
    for (int id = 0; id < size; id++) list[id] = (struct candidate){logits[id], 0, id};
    qsort(list, (size_t)size, sizeof *list, by_logit);
    while (count < size && list[count].logit == list[count - 1].logit) count++;
    for (int i = 0; i < count; i++)
        sum += list[i].weight = exp((list[i].logit - list[0].logit) / sampling->temperature);
    while (last < count && kept < sampling->top_p * sum) kept += list[last++].weight;
    for (int i = 0; i < last; i++)
        if ((number -= list[i].weight / kept) < 0) return list[i].id;
    return list[last - 1].id;
}

/* SplitMix64, one number after the other. */
static double uniform(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static void draws_are_those_of_a_sorted_list(void **state) {
    (void)state;
    static const struct sampling kinds[] = {
        {0.7, 0.8, 1, 20, 1}, {3, 0.9, 1, 0, 2}, {1, 1, 1, 0, 3}, {2, 0.3, 1, 500, 4}};
    static float logits[MOST];
    struct chooser chooser;
    int differ = 0;
    for (int i = 0; i < MOST; i++) logits[i] = half_to_float(half_from_float((float)(i * 7919 % 1201) / 150 - 3));
    for (int kind = 0; kind < 4; kind++) {
        uint64_t generator = kinds[kind].seed;
        open_chooser(&chooser, &kinds[kind], logits, MOST, 1);
        for (int i = 0; i < 250; i++)
            differ += choose_next(&chooser) != draw_sorted(&kinds[kind], logits, MOST, uniform(&generator));
        close_chooser(&chooser);
    }
    assert_in_range(differ, 0, 1); /* where the two roundings part */
}

static void seeds_decide(void **state) {
    (void)state;
    float logits[100] = {0};
    int same = 0;
    struct sampling sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    for (sampling.seed = 0; sampling.seed < 50; sampling.seed++) {
        assert_int_equal(choose(sampling, logits, 100, -1), choose(sampling, logits, 100, -1));
        struct sampling next = sampling;
        next.seed++;
        same += choose(sampling, logits, 100, -1) == choose(next, logits, 100, -1);
    }
    assert_in_range(same, 0, 5);
}

/* A row chooses what it would alone: with the same seed all the same, with others not. */
static void rows_do_not_matter(void **state) {
    (void)state;
    static float logits[MOST];
    struct sampling sampling = {.temperature = 2, .top_p = 0.9, .repetition_penalty = 1.3, .top_k = 300, .seed = 5};
    struct chooser one, all;
    int32_t ids[ROWS];
    int same = 0;
    for (int i = 0; i < MOST; i++) logits[i] = (float)(i * 7919 % 1201) / 200;
    open_chooser(&one, &sampling, logits, MOST, 1);
    open_chooser(&all, &sampling, logits, MOST, ROWS);
    all.sampling[2].seed = 6;
    for (int i = 0; i < 30; i++) {
        choose_rows(&all, ids);
        assert_int_equal(choose_next(&one), ids[0]);
        assert_int_equal(ids[2], ids[0]);
        assert_int_equal(ids[3], ids[0]);
        same += ids[1] == ids[0];
    }
    assert_in_range(same, 0, 5);
    close_chooser(&one);
    close_chooser(&all);
}

static void logits_that_are_not_numbers_have_no_token(void **state) {
    (void)state;
    const float wrong[] = {NAN, -NAN, INFINITY, -INFINITY};
    struct sampling sampling = {.temperature = 1, .top_p = 0.5, .repetition_penalty = 2, .top_k = 1};
    for (int i = 0; i < 4; i++) {
        const float logits[] = {1, wrong[i], 2};
        assert_int_equal(choose(sampling, logits, 3, 1), -1);
        assert_int_equal(choose(sampling, logits, 1, -1), 0);
        assert_int_equal(choose(greedy, logits, 3, -1), -1);
    }
}

/* --- stream --- */

/* The pieces, then what is held at the end. */
static void streams(const char *const *pieces, const char *before_end, const char *after_end) {
    struct stream stream = {0};
    for (; *pieces; pieces++) stream_write(&stream, *pieces, strlen(*pieces));
    assert_string_equal(stream.text ? stream.text : "", before_end);
    stream_end(&stream);
    assert_string_equal(stream.text ? stream.text : "", after_end);
    assert_int_equal(stream.failed, 0);
    stream_free(&stream);
}

#define STREAMS(before_end, after_end, ...) streams((const char *const[]){__VA_ARGS__, NULL}, before_end, after_end)

static void characters_come_out_whole(void **state) {
    (void)state;
    STREAMS("plain", "plain", "pl", "ain");
    STREAMS("\xe6\x97\xa5", "\xe6\x97\xa5", "\xe6", "\x97", "\xa5");
    STREAMS("a", "a\xef\xbf\xbd", "a\xf0\x9f", "\x98");
    STREAMS("\xf0\x9f\x98\x80!", "\xf0\x9f\x98\x80!", "\xf0\x9f", "\x98\x80!");
}

static void bytes_that_are_no_characters_are_replaced(void **state) {
    (void)state;
    STREAMS("\xef\xbf\xbd"
            "a",
            "\xef\xbf\xbd"
            "a",
            "\xff", "a");
    STREAMS("\xef\xbf\xbd"
            "a",
            "\xef\xbf\xbd"
            "a",
            "\xe6\x97", "a");
    STREAMS("\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd", "\xc0\x80");
    STREAMS("\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "\xed\xa0\x80");
}

static void output_that_fails_is_noticed(void **state) {
    (void)state;
    struct stream stream = {.out = fopen("/dev/full", "w")};
    if (!stream.out) skip();
    stream_write(&stream, "x", 1);
    assert_int_equal(stream.failed, ENOSPC);
    fclose(stream.out);
    stream_free(&stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_temperature_the_largest_and_the_lowest_of_equals),
        cmocka_unit_test(the_penalty_divides_above_zero_and_multiplies_below),
        cmocka_unit_test(chosen_ids_are_penalized_too),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(draws_of_many_ids_follow_the_softmax),
        cmocka_unit_test(the_least_temperatures_are_greedy),
        cmocka_unit_test(top_k_keeps_ties_with_the_last),
        cmocka_unit_test(top_p_keeps_the_token_that_crosses),
        cmocka_unit_test(top_k_of_many_is_the_k_largest),
        cmocka_unit_test(draws_are_those_of_a_sorted_list),
        cmocka_unit_test(seeds_decide),
        cmocka_unit_test(rows_do_not_matter),
        cmocka_unit_test(logits_that_are_not_numbers_have_no_token),
        cmocka_unit_test(characters_come_out_whole),
        cmocka_unit_test(bytes_that_are_no_characters_are_replaced),
        cmocka_unit_test(output_that_fails_is_noticed),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
