#include <stdio.h>
#include <string.h>

#include "kernels/kernel.h"

extern const struct kernel awq_dequant_tiled, marlin_gemm_gemv, marlin_gemm_mma, marlin_gemm_skinny;
extern const struct kernel marlin_gemm_wgmma, marlin_gemm_persistent, marlin_gemm_dequantize;
extern const struct kernel fp16_gemm_mma, fp16_gemm_skinny, fp16_gemm_wgmma, fp16_gemm_cublaslt;
extern const struct kernel awq_dequant_cpu, marlin_gemm_cpu, fp16_gemm_cpu;

/* One a line. */
/* clang-format off */
static const struct kernel *kernels[MAX_KERNELS + 1] = {
    &awq_dequant_tiled,
    &marlin_gemm_gemv,
    &marlin_gemm_mma,
    &marlin_gemm_skinny,
    &marlin_gemm_wgmma,
    &marlin_gemm_persistent,
    &marlin_gemm_dequantize,
    &fp16_gemm_mma,
    &fp16_gemm_skinny,
    &fp16_gemm_wgmma,
#ifdef TILEBOOK_CUDA
    &fp16_gemm_cublaslt,
#endif
    &awq_dequant_cpu,
    &marlin_gemm_cpu,
    &fp16_gemm_cpu,
    NULL,
};
/* clang-format on */

const struct kernel *const *kernel_list(void) {
    return kernels;
}

const char *kernel_full_name(const struct kernel *kernel, char *text) {
    snprintf(text, 64, "%s/%s", op_name(kernel->op), kernel->name);
    return text;
}

const struct kernel *kernel_find(const char *full_name) {
    char name[64];
    for (int i = 0; kernels[i]; i++)
        if (!strcmp(full_name, kernel_full_name(kernels[i], name))) return kernels[i];
    return NULL;
}

static int check_parameters(const struct kernel *kernel, struct error *error) {
    if (kernel->parameter_count < 0 || kernel->parameter_count > MAX_PARAMETERS)
        return error_set(error, "%d parameters, at most %d are possible", kernel->parameter_count, MAX_PARAMETERS);
    const size_t most_digits = 11; /* of an int, with its sign */
    size_t text = 1;
    for (int i = 0; i < kernel->parameter_count; i++) {
        const struct parameter *p = &kernel->parameters[i];
        if (!p->name || !p->help) return error_set(error, "parameter %d has no name or no help", i);
        if (strlen(p->name) > MAX_PARAMETER_NAME)
            return error_set(error, "parameter %s has a name longer than %d", p->name, MAX_PARAMETER_NAME);
        text += strlen(p->name) + most_digits + 2; /* "name=value " */
        if (p->count < 1 || p->count > MAX_VALUES)
            return error_set(error, "parameter %s has %d values, 1 to %d are possible", p->name, p->count, MAX_VALUES);
        for (int v = 1; v < p->count; v++)
            if (p->values[v] <= p->values[v - 1])
                return error_set(error, "the values of parameter %s do not ascend", p->name);
    }
    if (text > MAX_CONFIG_TEXT)
        return error_set(error, "a configuration may take %zu bytes, at most %d are possible", text, MAX_CONFIG_TEXT);
    return 0;
}

static int check_kernel(const struct kernel *kernel, int index, struct error *error) {
    char name[64];
    if (!kernel->name || !kernel->summary || !kernel->estimate || !kernel->launch == !kernel->run)
        return error_set(error, "kernel %d needs a name, a summary, an estimate, and either launch or run", index);
    kernel_full_name(kernel, name);
    if (kernel_find(name) != kernel) return error_set(error, "kernel %s is registered twice", name);
    return check_parameters(kernel, error) ? error_prefix(error, "kernel %s", name) : 0;
}

int kernel_list_check(struct error *error) {
    for (int i = 0; kernels[i]; i++)
        if (check_kernel(kernels[i], i, error)) return -1;
    return 0;
}

int kernel_register(const struct kernel *kernel, struct error *error) {
    int count = 0;
    while (kernels[count]) count++;
    if (count == MAX_KERNELS) return error_set(error, "more than %d kernels", MAX_KERNELS);
    kernels[count] = kernel;
    if (!check_kernel(kernel, count, error)) return 0;
    kernels[count] = NULL;
    return -1;
}
