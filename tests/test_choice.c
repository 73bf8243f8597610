/* What a consumer of a tile table runs, with kernels that nobody has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/choice.h"

static const struct device device = {.backend = BACKEND_CPU, .id = "test"};
static const struct problem problem = {OP_FP16_GEMM, 8, 64, 128, 0, false, EPILOGUE_NONE};
static struct error error;

static double estimate_up(const struct device *d, const struct problem *p, const struct config *c) {
    (void)d;
    return 10 + p->m * c->value[0];
}

static double estimate_flat(const struct device *d, const struct problem *p, const struct config *c) {
    (void)d, (void)p;
    return 20 - c->value[0];
}

static double estimate_nothing(const struct device *d, const struct problem *p, const struct config *c) {
    (void)d, (void)p, (void)c;
    return 0;
}

static int legal_small(const struct device *d, const struct problem *p, const struct config *c, struct error *why) {
    (void)d;
    return p->m > c->value[0] ? error_set(why, "more rows than a") : 0;
}

static int never_run(const struct plan *plan, const struct operands *operands, struct error *e) {
    (void)plan, (void)operands;
    return error_set(e, "not for running");
}

#define KERNEL(id, where, how, ...)                                                                                    \
    static const struct kernel id = {.op = OP_FP16_GEMM,                                                               \
                                     .backend = where,                                                                 \
                                     .name = #id,                                                                      \
                                     .summary = "for tests",                                                           \
                                     .parameter_count = 1,                                                             \
                                     .parameters = {{"a", "-", 3, {1, 2, 8}}},                                         \
                                     .estimate = how,                                                                  \
                                     .run = never_run,                                                                 \
                                     __VA_ARGS__}
KERNEL(first, BACKEND_CPU, estimate_up);
KERNEL(second, BACKEND_CPU, estimate_flat, .legal = legal_small);
KERNEL(peer, BACKEND_CPU, estimate_nothing, .peer = true);
KERNEL(elsewhere, BACKEND_CUDA, estimate_nothing);

static const struct kernel *const all[] = {&elsewhere, &peer, &first, &second, NULL};

static void expect_default(const struct kernel *const *kernels, int m, const struct kernel *kernel, int a) {
    struct choice choice;
    struct problem at = problem;
    at.m = m;
    if (choice_make(&device, kernels, NULL, &at, &choice, &error)) fail_msg("%s", error.text);
    assert_int_equal(choice.how, CHOICE_NO_TABLE);
    assert_ptr_equal(choice.kernel, kernel);
    assert_int_equal(choice.config.value[0], a);
    assert_null(choice.row);
}

static void test_the_default_is_the_least_estimate_of_all_kernels(void **state) {
    (void)state;
    const struct kernel *const peers[] = {&peer, NULL}, *const none[] = {&elsewhere, NULL},
                               *const small[] = {&second, NULL};
    struct choice choice;
    expect_default(all, 1, &first, 1);
    expect_default(all, 2, &first, 1); /* 12, as the other kernel's 20 - 8: the first of equals */
    expect_default(all, 8, &second, 8);
    expect_default(all, 9, &first, 1); /* not legal for the second */
    expect_default(peers, 1, &peer, 1);
    assert_int_equal(choice_make(&device, none, NULL, &problem, &choice, &error), -1);
    assert_non_null(strstr(error.text, "no kernel for fp16_gemm m=8"));
    struct problem large = problem;
    large.m = 9;
    assert_int_equal(choice_make(&device, small, NULL, &large, &choice, &error), -1);
    assert_non_null(strstr(error.text, "more rows than a"));
}

static void expect_choice(struct tile_table *table, int m, enum choice_how how, const struct kernel *kernel, int a,
                          const char *why) {
    struct choice choice;
    struct problem at = problem;
    at.m = m;
    if (choice_make(&device, all, table, &at, &choice, &error)) fail_msg("%s", error.text);
    assert_int_equal(choice.how, how);
    assert_ptr_equal(choice.kernel, kernel);
    assert_int_equal(choice.config.value[0], a);
    if (!strstr(choice.why, why)) fail_msg("'%s' lacks '%s'", choice.why, why);
}

static void test_the_row_decides_where_it_can_run(void **state) {
    (void)state;
    struct tile_row rows[] = {{"fp16_gemm", 128, 64, 0, 2, 4, "fp16_gemm/first", "a=2", 1, 1, 0, 1},
                              {"fp16_gemm", 128, 64, 0, 5, 8, "fp16_gemm/second", "a=8", 1, 1, 0, 1}};
    struct tile_table table = {.rows = rows, .count = 2};
    expect_choice(&table, 3, CHOICE_ROW, &first, 2, "");
    expect_choice(&table, 8, CHOICE_ROW, &second, 8, "");
    expect_choice(&table, 1, CHOICE_NO_ROW, &first, 1, "");
    expect_choice(&table, 9, CHOICE_REFUSED, &first, 1, "more rows than a");
    strcpy(rows[1].kernel, "fp16_gemm/first");
    expect_choice(&table, 9, CHOICE_ABOVE, &first, 8, "");
    strcpy(rows[1].configuration, "a=3");
    expect_choice(&table, 8, CHOICE_REFUSED, &second, 8, "a=3 is not one of 1, 2, 8");
    strcpy(rows[1].kernel, "fp16_gemm/elsewhere");
    expect_choice(&table, 8, CHOICE_REFUSED, &second, 8, "does not run on test");
    strcpy(rows[1].kernel, "fp16_gemm/none");
    expect_choice(&table, 8, CHOICE_REFUSED, &second, 8, "no such kernel");
    table.count = 0;
    expect_choice(&table, 8, CHOICE_NO_ROW, &second, 8, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_default_is_the_least_estimate_of_all_kernels),
        cmocka_unit_test(test_the_row_decides_where_it_can_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
