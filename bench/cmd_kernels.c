#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/shapes.h"
#include "bench/commands.h"
#include "kernels/peer/peer.h"

struct options {
    const char *op, *device, *shapes, *m;
};

static const struct argp_option option_list[] = {
    {"device", 'd', "D", 0, "Kernels of this device only: cpu or cuda:N", 0},
    {"shapes", 's', "LIST", 0,
     "Count the legal configurations for these shapes: qwen2.5-14b, a model directory, [NAME=]KxN[@M],... or a file of "
     "those (needs --device)",
     0},
    {"peer", 'p', "FILE", 0, "With the kernels of this shared library (kernels/peer/README.md); may be repeated", 0},
    {"m", 'm', "LIST", 0, "Rows of x for --shapes: 1,16,256 or 1:8192:x2 (default 1)", 0},
    {0},
};

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    struct options *options = state->input;
    struct error error;
    if (key == 'd')
        options->device = argument_device(state, argument);
    else if (key == 's')
        options->shapes = argument;
    else if (key == 'm')
        options->m = argument;
    else if (key == 'p' && peer_load(argument, &error))
        argp_failure(state, 1, 0, "%s", error.text);
    else if (key == 'p')
        return 0;
    else if (key == ARGP_KEY_ARG && !options->op)
        options->op = argument;
    else if (key == ARGP_KEY_END && options->shapes && !options->device)
        argp_error(state, "--shapes needs --device: what is legal depends on it");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp parser = {
    .options = option_list,
    .parser = parse_option,
    .args_doc = "[OP]",
    .doc = "Lists the kernels with their tile parameters, the values of each, and the size of the space.\v"
           "Examples:\n"
           "  tilebook kernels\n"
           "  tilebook kernels marlin_gemm --device cpu --shapes 1024x1024 --m 1,16",
};

/* What legality is counted for. */
struct scope {
    struct device *device;
    struct shapes shapes;
    int *m, m_count;
};

/* 0 or the exit code. */
static int load_scope(const struct options *options, struct scope *scope, struct error *error) {
    if (options->device && device_open(options->device, &scope->device, error)) return 1;
    if (!options->shapes) return 0;
    if (shapes_parse(options->shapes, &scope->shapes, error)) return 2;
    return m_list_parse(options->m, &scope->m, &scope->m_count, error) ? 2 : 0;
}

static void free_scope(struct scope *scope) {
    shapes_free(&scope->shapes);
    free(scope->m);
    device_close(scope->device);
}

static void print_legal(const struct scope *scope, const struct kernel *kernel, const struct problem *problem) {
    struct error why = {""};
    char text[128];
    long legal = 0;
    if (!problem_check(problem, &why))
        for (long i = 0; i < config_space(kernel); i++) {
            struct config config = config_at(kernel, i);
            legal += !config_legal(scope->device, kernel, problem, &config, &why);
        }
    printf("    legal for %s: %ld%s%s\n", problem_text(problem, text), legal, legal ? "" : ": ", legal ? "" : why.text);
}

static void print_kernel(const struct scope *scope, const struct kernel *kernel) {
    char name[64];
    printf("%s  (%s)  %s\n", kernel_full_name(kernel, name), kernel->backend == BACKEND_CPU ? "cpu" : "cuda",
           kernel->summary);
    for (int i = 0; i < kernel->parameter_count; i++) {
        const struct parameter *p = &kernel->parameters[i];
        char values[128] = "";
        for (int v = 0, used = 0; v < p->count; v++)
            used += snprintf(values + used, sizeof values - (size_t)used, "%s%d", v ? " " : "", p->values[v]);
        printf("    %-12s %-28s %s\n", p->name, values, p->help);
    }
    printf("    %ld configuration%s\n", config_space(kernel), config_space(kernel) == 1 ? "" : "s");
    for (int s = 0; s < scope->shapes.count; s++)
        for (int i = 0; i < (kernel->op == OP_AWQ_DEQUANT || scope->shapes.list[s].m ? 1 : scope->m_count); i++) {
            const struct shape *shape = &scope->shapes.list[s];
            int m = shape->m ? shape->m : scope->m[i];
            struct problem problem = shape_problem(shape, kernel->op, m, scope->shapes.group, true, EPILOGUE_NONE);
            if (shape->quantized || kernel->op == OP_FP16_GEMM) print_legal(scope, kernel, &problem);
        }
}

int cmd_kernels(int argc, char **argv) {
    struct options options = {.m = "1"};
    struct scope scope = {.device = NULL};
    struct error error;
    enum op op = OP_COUNT;
    argp_err_exit_status = 2;
    argv[0] = (char *)"tilebook kernels";
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    int code = options.op && op_parse(options.op, &op, &error) ? 2 : load_scope(&options, &scope, &error);
    if (code) fprintf(stderr, "tilebook kernels: %s\n", error.text);
    for (const struct kernel *const *kernel = kernel_list(); !code && *kernel; kernel++)
        if ((op == OP_COUNT || (*kernel)->op == op) && (!scope.device || (*kernel)->backend == scope.device->backend))
            print_kernel(&scope, *kernel);
    free_scope(&scope);
    return code;
}
