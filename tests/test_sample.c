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

#include "bench/decoder/sample.h"
#include "bench/decoder/stream.h"

static const struct sampling greedy = {.temperature = 0, .top_p = 1, .repetition_penalty = 1};

/* One draw of a fresh sampler that has seen `seen` (-1: nothing). */
static int choose(struct sampling sampling, const float *logits, int size, int seen) {
    struct error error = {""};
    struct sampler *sampler = sampler_create(&sampling, size);
    assert_non_null(sampler);
    sampler_see(sampler, seen);
    int id = sampler_next(sampler, logits, &error);
    sampler_destroy(sampler);
    return id;
}

/* How often each of `size` ids comes in `draws`. */
static void count_draws(struct sampling sampling, const float *logits, int size, int draws, int *counts) {
    struct error error = {""};
    struct sampler *sampler = sampler_create(&sampling, size);
    memset(counts, 0, (size_t)size * sizeof *counts);
    for (int i = 0; i < draws; i++) counts[sampler_next(sampler, logits, &error)]++;
    sampler_destroy(sampler);
}

static void greedy_takes_the_largest_and_the_lowest_of_equals(void **state) {
    (void)state;
    const float logits[] = {1, 5, 3, 5, 9};
    assert_int_equal(choose(greedy, logits, 5, -1), 4);
    assert_int_equal(choose(greedy, logits, 4, -1), 1);
}

static void the_penalty_divides_above_zero_and_multiplies_below(void **state) {
    (void)state;
    struct sampling sampling = greedy;
    sampling.repetition_penalty = 2;
    const float positive[] = {3, 5, 2.4f}, negative[] = {-3, -2, -9};
    assert_int_equal(choose(sampling, positive, 3, 1), 0);
    assert_int_equal(choose(sampling, positive, 3, 0), 1);
    assert_int_equal(choose(sampling, negative, 3, 1), 0);
}

static void chosen_ids_are_penalized_too(void **state) {
    (void)state;
    struct sampling sampling = greedy;
    struct error error = {""};
    sampling.repetition_penalty = 2;
    const float logits[] = {3, 5, 2};
    struct sampler *sampler = sampler_create(&sampling, 3);
    assert_int_equal(sampler_next(sampler, logits, &error), 1);
    assert_int_equal(sampler_next(sampler, logits, &error), 0);
    assert_int_equal(sampler_next(sampler, logits, &error), 1);
    sampler_destroy(sampler);
}

static void draws_follow_the_softmax(void **state) {
    (void)state;
    struct sampling sampling = {.temperature = 2, .top_p = 1, .repetition_penalty = 1, .seed = 7};
    /* After division by the temperature: 1/7, 2/7, 4/7. */
    const float logits[] = {0, 2 * 0.6931472f, 4 * 0.6931472f};
    int counts[3];
    count_draws(sampling, logits, 3, 70000, counts);
    for (int i = 0; i < 3; i++) assert_in_range(counts[i], (10000 << i) - 600, (10000 << i) + 600);
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
    count_draws(sampling, logits, 5, 3000, counts);
    assert_int_equal(counts[0] + counts[4], 0);
    assert_true(counts[1] > 100 && counts[2] > 100 && counts[3] > 100);
}

static void top_p_keeps_the_token_that_crosses(void **state) {
    (void)state;
    struct sampling sampling = {.temperature = 1, .top_p = 0.6, .repetition_penalty = 1};
    const float logits[] = {logf(0.2f), logf(0.5f), logf(0.3f)};
    int counts[3];
    count_draws(sampling, logits, 3, 3000, counts);
    assert_int_equal(counts[0], 0);
    assert_true(counts[1] > 100 && counts[2] > 100);
    sampling.top_p = 0;
    count_draws(sampling, logits, 3, 100, counts);
    assert_int_equal(counts[1], 100);
}

/* Against the definition, by brute force. */
static void top_k_of_many_is_the_k_largest(void **state) {
    (void)state;
    enum { SIZE = 1000, K = 37 };
    static float logits[SIZE];
    static int counts[SIZE];
    struct sampling sampling = {.temperature = 50, .top_p = 1, .repetition_penalty = 1, .top_k = K};
    for (int i = 0; i < SIZE; i++) logits[i] = (float)(i * 7919 % SIZE) / 10;
    count_draws(sampling, logits, SIZE, 20000, counts);
    for (int i = 0; i < SIZE; i++) assert_int_equal(counts[i] > 0, logits[i] >= (float)(SIZE - K) / 10);
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

static void logits_that_are_not_numbers_are_an_error(void **state) {
    (void)state;
    const float logits[] = {1, NAN, 2};
    assert_int_equal(choose(greedy, logits, 3, -1), -1);
    assert_int_equal(choose(greedy, logits, 1, -1), 0);
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
        cmocka_unit_test(greedy_takes_the_largest_and_the_lowest_of_equals),
        cmocka_unit_test(the_penalty_divides_above_zero_and_multiplies_below),
        cmocka_unit_test(chosen_ids_are_penalized_too),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(the_least_temperatures_are_greedy),
        cmocka_unit_test(top_k_keeps_ties_with_the_last),
        cmocka_unit_test(top_p_keeps_the_token_that_crosses),
        cmocka_unit_test(top_k_of_many_is_the_k_largest),
        cmocka_unit_test(seeds_decide),
        cmocka_unit_test(logits_that_are_not_numbers_are_an_error),
        cmocka_unit_test(characters_come_out_whole),
        cmocka_unit_test(bytes_that_are_no_characters_are_replaced),
        cmocka_unit_test(output_that_fails_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
