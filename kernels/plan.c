#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernel.h"

/* "tile_m" = 16 becomes "-DTILE_M=16 ". */
static void append_macros(const struct kernel *kernel, const struct config *config, char *options, size_t size) {
    size_t used = strlen(options);
    for (int i = 0; i < kernel->parameter_count; i++) {
        char macro[MAX_PARAMETER_NAME + 1];
        size_t length = strlen(kernel->parameters[i].name);
        for (size_t c = 0; c <= length; c++) {
            char letter = kernel->parameters[i].name[c];
            macro[c] = (char)(letter >= 'a' && letter <= 'z' ? letter - 'a' + 'A' : letter);
        }
        used += (size_t)snprintf(options + used, size - used, "%s-D%s=%d", used ? " " : "", macro, config->value[i]);
    }
}

void launch_options(const struct kernel *kernel, const struct problem *problem, const struct config *config,
                    const struct launch *launch, char options[LAUNCH_OPTIONS]) {
    int used = snprintf(options, LAUNCH_OPTIONS, "%s", launch->options);
    if (kernel->op != OP_AWQ_DEQUANT)
        snprintf(options + used, LAUNCH_OPTIONS - (size_t)used, "%s-DEPILOGUE=%d%s", used ? " " : "", problem->epilogue,
                 problem->bf16 ? " -DBF16" : "");
    append_macros(kernel, config, options, LAUNCH_OPTIONS);
}

static int prepare(struct plan *plan, struct error *error) {
    const struct kernel *kernel = plan->kernel;
    if (!kernel->launch) return kernel->prepare ? kernel->prepare(plan, error) : 0;
    char options[LAUNCH_OPTIONS];
    kernel->launch(plan->device, &plan->problem, &plan->config, &plan->launch);
    launch_options(kernel, &plan->problem, &plan->config, &plan->launch, options);
    plan->workspace_bytes = plan->launch.workspace_bytes;
    return device_function(plan->device, plan->launch.source, plan->launch.entry, options, plan->launch.shared_bytes,
                           &plan->function, error);
}

int plan_create(struct device *device, const struct kernel *kernel, const struct problem *problem,
                const struct config *config, struct plan **result, struct error *error) {
    *result = NULL;
    if (kernel->backend != device->backend)
        return error_set(error, "kernel %s/%s does not run on %s; see `tilebook kernels`", op_name(kernel->op),
                         kernel->name, device->id);
    if (problem_check(problem, error)) return -1;
    if (config_legal(device, kernel, problem, config, error)) return -1;
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan) return error_set(error, "out of memory");
    *plan = (struct plan){.device = device, .kernel = kernel, .problem = *problem, .config = *config};
    if (prepare(plan, error)) {
        plan_destroy(plan);
        return -1;
    }
    *result = plan;
    return 0;
}

int plan_compile(const struct device *device, const struct kernel *kernel, const struct problem *problem,
                 const struct config *config, struct error *error) {
    struct launch launch = {0};
    char options[LAUNCH_OPTIONS];
    if (!kernel->launch) return kernel->compile ? kernel->compile(device, problem, config, error) : 0;
    kernel->launch(device, problem, config, &launch);
    launch_options(kernel, problem, config, &launch, options);
    return device_compile(device, launch.source, options, error);
}

int plan_run(const struct plan *plan, const struct operands *operands, struct error *error) {
    if (!plan->kernel->launch) return plan->kernel->run(plan, operands, error);
    const struct problem *p = &plan->problem;
    bool overlaps = plan->launch.grid.overlaps && plan->device->overlap == OVERLAP_WEIGHTS;
    struct {
        struct arguments arguments;
        struct device_tensor_map maps[MAX_TENSORS];
    } all = {.arguments = {*operands, p->m, p->n, p->k, p->group, overlaps}};
    for (int i = 0; i < plan->launch.tensor_count; i++) {
        const struct launch_tensor *t = &plan->launch.tensors[i];
        const void *memory = *(const void *const *)((const char *)operands + t->operand);
        if (device_tensor_map(plan->device, &t->tensor, memory, &all.maps[i], error)) return -1;
    }
    return device_launch(plan->device, plan->function, &plan->launch.grid, &all, error);
}

void plan_destroy(struct plan *plan) {
    if (!plan) return;
    if (plan->kernel->release) plan->kernel->release(plan);
    free(plan);
}
