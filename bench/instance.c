#include "bench/instance.h"

#include <stdlib.h>

#include "kernels/half.h"
#include "kernels/reference.h"

/* Seeds of the operands, so that none repeats another's numbers. */
enum { SEED_X, SEED_WEIGHTS, SEED_SCALES, SEED_ZEROS, SEED_ADDEND, SEED_GAIN, SEEDS };

/* Weights of about the size that trained ones have: (code - zero) * scale stays below 0.15. */
static const float scale_low = 0.002f, scale_high = 0.01f, weight_limit = 0.1f;

/* Operands of all copies lie one behind the other, each where device_alloc would have put it. */
static size_t stride(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

static int copies_wanted(const struct device *device, const struct operand_bytes *bytes, bool cold) {
    if (!cold) return 1;
    size_t each = bytes->weights + bytes->scales + bytes->zeros;
    size_t count = (2 * device->cache_bytes + each - 1) / each;
    return count < 2 ? 2 : (int)count;
}

/* Memory for `count` operands of `bytes`; *memory stays NULL for an operand that the problem lacks. */
static int allocate(struct instance *instance, size_t bytes, int count, const void **memory, struct error *error) {
    if (!bytes) return 0;
    *memory = device_alloc(instance->device, stride(bytes) * (size_t)count, error);
    return *memory ? 0 : -1;
}

static int fill_values(struct instance *instance, const void *to, size_t bytes, float limit, int which,
                       struct error *error) {
    int (*fill)(struct device *, void *, size_t, float, float, uint64_t, struct error *) =
        instance->problem.bf16 ? reference_fill_bf16 : reference_fill_half;
    return to ? fill(instance->device, (void *)to, bytes / 2, -limit, limit, instance->seed * SEEDS + which, error) : 0;
}

static int fill_half(struct instance *instance, const void *to, size_t bytes, float low, float high, int which,
                     struct error *error) {
    if (!to) return 0;
    return reference_fill_half(instance->device, (void *)to, bytes / 2, low, high, instance->seed * SEEDS + which,
                               error);
}

static int fill_bits(struct instance *instance, const void *to, size_t bytes, int which, struct error *error) {
    if (!to) return 0;
    return reference_fill_bits(instance->device, (void *)to, bytes, instance->seed * SEEDS + which, error);
}

static int fill_weights(struct instance *instance, const struct operand_bytes *bytes, struct error *error) {
    const struct operands *all = &instance->copies[0];
    size_t count = (size_t)instance->count, weights = stride(bytes->weights) * count;
    if (instance->problem.op == OP_FP16_GEMM)
        return fill_values(instance, all->weights, weights, weight_limit, SEED_WEIGHTS, error);
    if (fill_bits(instance, all->weights, weights, SEED_WEIGHTS, error)) return -1;
    if (fill_bits(instance, all->zeros, stride(bytes->zeros) * count, SEED_ZEROS, error)) return -1;
    return fill_half(instance, all->scales, stride(bytes->scales) * count, scale_low, scale_high, SEED_SCALES, error);
}

static const void *advance(const void *first, size_t bytes, int index) {
    return first ? (const char *)first + stride(bytes) * (size_t)index : NULL;
}

/* Weights, scales and zeros. */
static int make_weights(struct instance *instance, const struct operand_bytes *bytes, struct error *error) {
    struct operands *all = &instance->copies[0];
    if (allocate(instance, bytes->weights, instance->count, &all->weights, error)) return -1;
    if (allocate(instance, bytes->scales, instance->count, &all->scales, error)) return -1;
    if (allocate(instance, bytes->zeros, instance->count, &all->zeros, error)) return -1;
    for (int i = 1; i < instance->count; i++)
        instance->copies[i] = (struct operands){.weights = advance(all->weights, bytes->weights, i),
                                                .scales = advance(all->scales, bytes->scales, i),
                                                .zeros = advance(all->zeros, bytes->zeros, i)};
    return fill_weights(instance, bytes, error);
}

/* A norm's gains, fp32, as trained ones are: between 1 and 2, say. */
static int fill_gain(struct instance *instance, float *gain, size_t bytes, struct error *error) {
    size_t count = bytes / sizeof *gain;
    struct device *device = instance->device;
    if (!gain) return 0;
    float *values = malloc(bytes);
    uint16_t *halves = malloc(bytes / 2);
    int status = values && halves ? 0 : error_set(error, "out of memory");
    if (!status) status = reference_fill_half(device, gain, count, 1, 2, instance->seed * SEEDS + SEED_GAIN, error);
    if (!status) status = device_read(device, halves, gain, bytes / 2, error);
    for (size_t i = 0; i < count && !status; i++) values[i] = half_to_float(halves[i]);
    if (!status) status = device_write(device, gain, values, bytes, error);
    free(values);
    free(halves);
    return status;
}

/* What follows m, the epilogue and the norm: x, addend, gain and y, the same ones in all copies. */
static int make_rows(struct instance *instance, const struct operand_bytes *bytes, struct error *error) {
    struct operands *all = &instance->copies[0];
    const void *y = NULL, *gain = NULL;
    if (allocate(instance, bytes->x, 1, &all->x, error)) return -1;
    if (allocate(instance, bytes->addend, 1, &all->addend, error)) return -1;
    if (allocate(instance, bytes->gain, 1, &gain, error)) return -1;
    all->gain = gain;
    all->epsilon = 1e-6f;
    if (allocate(instance, bytes->y, 1, &y, error)) return -1;
    all->y = (void *)y;
    for (int i = 1; i < instance->count; i++) {
        struct operands *copy = &instance->copies[i];
        copy->x = all->x, copy->addend = all->addend, copy->gain = all->gain, copy->y = all->y;
        copy->epsilon = all->epsilon;
    }
    if (fill_gain(instance, (float *)gain, bytes->gain, error)) return -1;
    if (fill_values(instance, all->x, bytes->x, 1, SEED_X, error)) return -1;
    return fill_values(instance, all->addend, bytes->addend, 1, SEED_ADDEND, error);
}

static void release(struct instance *instance, const void *memory) {
    if (memory) device_free(instance->device, (void *)memory);
}

/* The reference is of x too. */
static void release_rows(struct instance *instance) {
    struct operands *all = &instance->copies[0];
    release(instance, all->x);
    release(instance, all->addend);
    release(instance, all->gain);
    release(instance, all->y);
    release(instance, instance->reference);
    all->x = all->addend = all->gain = all->y = NULL;
    instance->reference = NULL;
}

int instance_create_copies(struct device *device, const struct problem *problem, uint64_t seed, int count,
                           struct instance **result, struct error *error) {
    *result = NULL;
    if (problem_check(problem, error)) return -1;
    struct operand_bytes bytes = problem_operand_bytes(problem);
    struct instance *instance = calloc(1, sizeof *instance);
    if (!instance) return error_set(error, "out of memory");
    *instance = (struct instance){.device = device, .problem = *problem, .seed = seed, .count = count};
    instance->copies = calloc((size_t)instance->count, sizeof *instance->copies);
    if (!instance->copies) error_set(error, "out of memory");
    if (!instance->copies || make_weights(instance, &bytes, error) || make_rows(instance, &bytes, error)) {
        char text[128];
        instance_destroy(instance);
        return error_prefix(error, "data for %s", problem_text(problem, text));
    }
    *result = instance;
    return 0;
}

int instance_create(struct device *device, const struct problem *problem, uint64_t seed, bool cold,
                    struct instance **result, struct error *error) {
    struct operand_bytes bytes = problem_operand_bytes(problem);
    *result = NULL;
    if (problem_check(problem, error)) return -1;
    return instance_create_copies(device, problem, seed, copies_wanted(device, &bytes, cold), result, error);
}

bool instance_shares(const struct instance *instance, const struct problem *problem) {
    struct problem same = instance->problem;
    same.m = problem->m;
    same.epilogue = problem->epilogue;
    same.norm = problem->norm;
    return problem_equal(&same, problem);
}

int instance_change(struct instance *instance, const struct problem *problem, struct error *error) {
    struct operand_bytes bytes = problem_operand_bytes(problem);
    char text[128];
    if (problem_check(problem, error)) return -1;
    release_rows(instance);
    instance->problem = *problem;
    if (!make_rows(instance, &bytes, error)) return 0;
    return error_prefix(error, "data for %s", problem_text(problem, text));
}

void instance_destroy(struct instance *instance) {
    if (!instance) return;
    if (instance->copies) {
        const struct operands *all = &instance->copies[0];
        release_rows(instance);
        release(instance, all->weights);
        release(instance, all->scales);
        release(instance, all->zeros);
        release(instance, all->workspace);
    }
    free(instance->copies);
    free(instance);
}

static int grow_workspace(struct instance *instance, size_t bytes, struct error *error) {
    void *workspace = device_alloc(instance->device, bytes, error);
    if (!workspace) return error_prefix(error, "workspace");
    if (device_synchronize(instance->device, error)) {
        device_free(instance->device, workspace);
        return -1;
    }
    if (instance->workspace_bytes) device_free(instance->device, instance->copies[0].workspace);
    for (int i = 0; i < instance->count; i++) instance->copies[i].workspace = workspace;
    instance->workspace_bytes = bytes;
    return 0;
}

int instance_fit(struct instance *instance, const struct plan *plan, struct error *error) {
    size_t bytes = plan->workspace_bytes;
    if (bytes > instance->workspace_bytes && grow_workspace(instance, bytes, error)) return -1;
    size_t counters = bytes < WORKSPACE_COUNTER_BYTES ? bytes : WORKSPACE_COUNTER_BYTES;
    if (bytes && device_fill(instance->device, instance->copies[0].workspace, 0, counters, error)) return -1;
    if (!plan->kernel->prepare_weights) return 0;
    return plan->kernel->prepare_weights(plan, instance->copies, instance->count, error);
}

int instance_reference(struct instance *instance, struct error *error) {
    if (instance->reference) return 0;
    size_t outputs = problem_outputs(&instance->problem);
    float *reference = device_alloc(instance->device, outputs * sizeof *reference, error);
    if (!reference) return error_prefix(error, "reference");
    if (reference_run(instance->device, &instance->problem, &instance->copies[0], reference, error)) {
        device_free(instance->device, reference);
        return -1;
    }
    instance->reference = reference;
    return 0;
}

double instance_tolerance(const struct problem *problem) {
    return problem->bf16 ? 8 * INSTANCE_TOLERANCE : INSTANCE_TOLERANCE;
}

int instance_verify(struct instance *instance, const struct plan *plan, double *relative_error, struct error *error) {
    struct device *device = instance->device;
    struct operands *operands = &instance->copies[0];
    size_t outputs = problem_outputs(&instance->problem);
    struct comparison result = {0};
    if (relative_error) *relative_error = 0;
    if (instance_reference(instance, error)) return -1;
    if (device_fill(device, operands->y, 0xff, outputs * 2, error)) return -1;
    if (plan_run(plan, operands, error) || device_synchronize(device, error)) return -1;
    if (reference_compare(device, operands->y, instance->problem.bf16, instance->reference, outputs, &result, error))
        return -1;
    if (relative_error) *relative_error = result.relative_error;
    if (result.bad)
        return error_set(error, "wrong: %zu of %zu outputs are NaN, infinite or not written, the first at index %zu",
                         result.bad, outputs, result.first_bad);
    if (!(result.relative_error <= instance_tolerance(&instance->problem)))
        return error_set(error, "wrong: relative error %.3g, at most %.3g is accepted", result.relative_error,
                         instance_tolerance(&instance->problem));
    return 0;
}

int instance_verify_second(struct instance *instance, const struct plan *plan, struct error *error) {
    struct operands first = instance->copies[0];
    float *reference = instance->reference;
    instance->copies[0] = instance->copies[1];
    instance->reference = NULL;
    int result = instance_verify(instance, plan, NULL, error);
    device_free(instance->device, instance->reference);
    instance->copies[0] = first;
    instance->reference = reference;
    return result ? error_prefix(error, "right with the first weights, then with others") : 0;
}
