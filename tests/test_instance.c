/* Problems that share weights share an instance: it has the numbers of a fresh one, and its weights stay where they
 * are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "bench/instance.h"
#include "kernels/choice.h"

static struct device *cpu;

static int open_cpu(void **state) {
    (void)state;
    struct error error;
    return device_open("cpu", &cpu, &error);
}

static int close_cpu(void **state) {
    (void)state;
    device_close(cpu);
    return 0;
}

static struct instance *make(const struct problem *problem) {
    struct instance *instance;
    struct error error;
    if (instance_create_copies(cpu, problem, 3, 2, &instance, &error)) fail_msg("%s", error.text);
    return instance;
}

static void verify_default(struct instance *instance) {
    struct choice choice;
    struct plan *plan = NULL;
    struct error error;
    if (choice_default(cpu, kernel_list(), &instance->problem, &choice, &error) ||
        plan_create(cpu, choice.kernel, &instance->problem, &choice.config, &plan, &error))
        fail_msg("%s", error.text);
    if (instance_fit(instance, plan, &error) || instance_verify(instance, plan, NULL, &error) ||
        instance_verify_second(instance, plan, &error))
        fail_msg("%s", error.text);
    plan_destroy(plan);
}

static void test_changes_into_a_fresh_one(void **state) {
    (void)state;
    const struct problem first = {OP_MARLIN_GEMM, 3, 128, 256, 128, true, EPILOGUE_NONE};
    const struct problem others[] = {{OP_MARLIN_GEMM, 7, 128, 256, 128, true, EPILOGUE_RESIDUAL},
                                     {OP_MARLIN_GEMM, 1, 128, 256, 128, true, EPILOGUE_SILU_MUL},
                                     {OP_MARLIN_GEMM, 64, 128, 256, 128, true, EPILOGUE_BIAS}};
    struct error error;
    struct instance *instance = make(&first);
    verify_default(instance);
    for (int i = 0; i < 3; i++) {
        const struct operands before = instance->copies[1], *now = &instance->copies[1];
        assert_true(instance_shares(instance, &others[i]));
        if (instance_change(instance, &others[i], &error)) fail_msg("%s", error.text);
        assert_null(instance->reference);
        assert_true(now->weights == before.weights && now->scales == before.scales && now->zeros == before.zeros);
        struct instance *fresh = make(&others[i]);
        const struct operand_bytes bytes = problem_operand_bytes(&others[i]);
        const struct operands *wanted = &fresh->copies[1];
        assert_memory_equal(now->weights, wanted->weights, bytes.weights);
        assert_memory_equal(now->x, wanted->x, bytes.x);
        if (bytes.addend) assert_memory_equal(now->addend, wanted->addend, bytes.addend);
        assert_int_equal(!now->addend, !bytes.addend);
        instance_destroy(fresh);
        verify_default(instance);
    }
    instance_destroy(instance);
}

static void test_verifies_bf16(void **state) {
    (void)state;
    struct problem problems[] = {{OP_MARLIN_GEMM, 3, 128, 256, 128, true, EPILOGUE_SILU_MUL},
                                 {OP_FP16_GEMM, 3, 128, 256, 0, false, EPILOGUE_RESIDUAL}};
    for (int i = 0; i < 2; i++) {
        problems[i].bf16 = true;
        struct instance *instance = make(&problems[i]);
        verify_default(instance);
        instance_destroy(instance);
    }
}

static void test_shares_with_the_same_weights_alone(void **state) {
    (void)state;
    const struct problem first = {OP_MARLIN_GEMM, 3, 128, 256, 128, true, EPILOGUE_NONE};
    struct instance *instance = make(&first);
    struct problem other = first;
    assert_true(instance_shares(instance, &other));
    other.zeros = false;
    assert_false(instance_shares(instance, &other));
    other = first, other.n = 192;
    assert_false(instance_shares(instance, &other));
    other = first, other.k = 128;
    assert_false(instance_shares(instance, &other));
    other = first, other.group = 64;
    assert_false(instance_shares(instance, &other));
    other = first, other.bf16 = true;
    assert_false(instance_shares(instance, &other));
    other = (struct problem){OP_FP16_GEMM, 3, 128, 256, 0, false, EPILOGUE_NONE};
    assert_false(instance_shares(instance, &other));
    other = first, other.m = 0;
    struct error error;
    assert_int_equal(instance_change(instance, &other, &error), -1);
    assert_int_equal(instance->problem.m, 3);
    instance_destroy(instance);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes_into_a_fresh_one),
        cmocka_unit_test(test_verifies_bf16),
        cmocka_unit_test(test_shares_with_the_same_weights_alone),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
