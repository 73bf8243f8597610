#include "bench/yardsticks.h"

#include <stdlib.h>
#include <string.h>

#include "bench/floor.h"

/* What is known for the key; else NULL, and *added holds the key with us = 0. */
static const struct yardstick *find_or_add(struct yardstick **list, int *count, const size_t key[3],
                                           struct yardstick **added) {
    *added = NULL;
    for (int i = 0; i < *count; i++)
        if (!memcmp((*list)[i].key, key, sizeof(*list)[i].key)) return &(*list)[i];
    struct yardstick *grown = reallocarray(*list, (size_t)*count + 1, sizeof *grown);
    if (!grown) return NULL;
    *list = grown;
    *added = &grown[(*count)++];
    **added = (struct yardstick){{key[0], key[1], key[2]}, 0};
    return NULL;
}

int yardstick_floor(struct yardsticks *yardsticks, struct instance *instance, enum regime regime, double pace,
                    double *us, struct error *error) {
    struct operand_bytes bytes = problem_operand_bytes(&instance->problem);
    const size_t key[3] = {bytes.weights, bytes.scales, bytes.zeros};
    struct yardstick *added;
    const struct yardstick *known = find_or_add(&yardsticks->floors, &yardsticks->floor_count, key, &added);
    *us = known ? known->us : 0;
    if (known) return 0;
    if (!added) return error_set(error, "out of memory");
    if (measure_floor(instance, regime, pace, us, error)) return -1;
    added->us = *us;
    return 0;
}

static int time_product(struct instance *instance, const struct kernel *kernel, const struct measure_options *options,
                        double *us, struct error *error) {
    struct config config;
    struct plan *plan;
    struct measurement m;
    if (config_default(instance->device, kernel, &instance->problem, &config, error)) return -1;
    if (plan_create(instance->device, kernel, &instance->problem, &config, &plan, error)) return -1;
    int result = instance_fit(instance, plan, error);
    if (!result) result = instance_verify(instance, plan, NULL, error);
    if (!result) result = measure(instance, plan, options, &m, error);
    plan_destroy(plan);
    if (result) return -1;
    *us = m.median_us;
    measurement_free(&m);
    return 0;
}

/* On the instance itself if it holds the fp16 product, else on one made for it. */
static int measure_cublas(struct instance *instance, const struct measure_options *options, double *us,
                          struct error *error) {
    const struct problem *p = &instance->problem;
    const struct problem product = {.op = OP_FP16_GEMM, .m = p->m, .n = p->n, .k = p->k};
    const struct kernel *kernel = kernel_find("fp16_gemm/cublaslt");
    struct instance *own = NULL;
    if (!kernel) return error_set(error, "there is no fp16_gemm/cublaslt in this build");
    if (problem_equal(p, &product)) return time_product(instance, kernel, options, us, error);
    int result = instance_create(instance->device, &product, instance->seed, instance->count > 1, &own, error);
    if (!result) result = time_product(own, kernel, options, us, error);
    instance_destroy(own);
    return result;
}

int yardstick_cublas(struct yardsticks *yardsticks, struct instance *instance, const struct measure_options *options,
                     double *us, struct error *error) {
    const struct problem *p = &instance->problem;
    const size_t key[3] = {(size_t)p->m, (size_t)p->n, (size_t)p->k};
    struct yardstick *added;
    const struct yardstick *known = find_or_add(&yardsticks->products, &yardsticks->product_count, key, &added);
    *us = known ? known->us : 0;
    if (known) return 0;
    if (!added) return error_set(error, "out of memory");
    if (measure_cublas(instance, options, us, error)) return error_prefix(error, "cuBLASLt beside the rows");
    added->us = *us;
    return 0;
}

void yardsticks_free(struct yardsticks *yardsticks) {
    free(yardsticks->floors);
    free(yardsticks->products);
    *yardsticks = (struct yardsticks){.floor_count = 0};
}
