#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernel.h"

const char *config_text(const struct kernel *kernel, const struct config *config, char *text) {
    size_t used = 0;
    snprintf(text, MAX_CONFIG_TEXT, "-");
    for (int i = 0; i < kernel->parameter_count; i++)
        used += (size_t)snprintf(text + used, MAX_CONFIG_TEXT - used, "%s%s=%d", i ? " " : "",
                                 kernel->parameters[i].name, config->value[i]);
    return text;
}

static int find_parameter(const struct kernel *kernel, const char *name, size_t length) {
    for (int i = 0; i < kernel->parameter_count; i++)
        if (strlen(kernel->parameters[i].name) == length && !strncmp(kernel->parameters[i].name, name, length))
            return i;
    return -1;
}

/* "tile_m, tile_n, stages" */
static const char *parameter_names(const struct kernel *kernel, char text[256]) {
    size_t used = 0;
    snprintf(text, 256, "none");
    for (int i = 0; i < kernel->parameter_count && used < 256; i++)
        used += (size_t)snprintf(text + used, 256 - used, "%s%s", i ? ", " : "", kernel->parameters[i].name);
    return text;
}

static int check_value(const struct kernel *kernel, int index, long value, struct error *error) {
    const struct parameter *p = &kernel->parameters[index];
    char accepted[128] = "";
    size_t used = 0;
    for (int i = 0; i < p->count; i++)
        if (p->values[i] == value) return 0;
    for (int i = 0; i < p->count && used < sizeof accepted; i++)
        used += (size_t)snprintf(accepted + used, sizeof accepted - used, "%s%d", i ? ", " : "", p->values[i]);
    return error_set(error, "%s/%s: %s=%ld is not one of %s", op_name(kernel->op), kernel->name, p->name, value,
                     accepted);
}

/* One "name=value" at *cursor; leaves *cursor behind it. */
static int parse_assignment(const struct kernel *kernel, const char **cursor, struct config *config, bool *seen,
                            struct error *error) {
    char names[256];
    const char *name = *cursor, *end = name + strcspn(name, "= ,\t");
    int index = find_parameter(kernel, name, (size_t)(end - name));
    if (*end != '=') return error_set(error, "configuration: '%.*s' is not name=value", (int)(end - name), name);
    if (index < 0)
        return error_set(error, "%s/%s has no parameter '%.*s'; there are: %s", op_name(kernel->op), kernel->name,
                         (int)(end - name), name, parameter_names(kernel, names));
    if (seen[index]) return error_set(error, "configuration: '%s' is given twice", kernel->parameters[index].name);
    char *after;
    long value = strtol(end + 1, &after, 10);
    if (after == end + 1 || !(*after == 0 || *after == ' ' || *after == ',' || *after == '\t'))
        return error_set(error, "configuration: the value of '%s' is not a number", kernel->parameters[index].name);
    if (check_value(kernel, index, value, error)) return -1;
    config->value[index] = (int)value;
    seen[index] = true;
    *cursor = after;
    return 0;
}

int config_parse(const struct kernel *kernel, const char *text, struct config *config, struct error *error) {
    bool seen[MAX_PARAMETERS] = {false};
    *config = (struct config){{0}};
    if (!strcmp(text, "-")) text = "";
    for (const char *cursor = text; *(cursor += strspn(cursor, " ,\t"));)
        if (parse_assignment(kernel, &cursor, config, seen, error)) return -1;
    for (int i = 0; i < kernel->parameter_count; i++)
        if (!seen[i])
            return error_set(error, "%s/%s: the configuration lacks '%s'", op_name(kernel->op), kernel->name,
                             kernel->parameters[i].name);
    return 0;
}

/* Of a configuration whose values are listed ones. */
static int check_rules(const struct device *device, const struct kernel *kernel, const struct problem *problem,
                       const struct config *config, struct error *why) {
    if (kernel->op != problem->op)
        return error_set(why, "kernel %s/%s does not compute %s", op_name(kernel->op), kernel->name,
                         op_name(problem->op));
    if (problem->norm && !kernel->norms)
        return error_set(why, "kernel %s/%s does not normalise x", op_name(kernel->op), kernel->name);
    if (problem->bf16 && !kernel->bf16)
        return error_set(why, "kernel %s/%s takes fp16, not bf16", op_name(kernel->op), kernel->name);
    if (kernel->accepts && kernel->accepts(kernel, device, problem, why)) return -1;
    return kernel->legal ? kernel->legal(device, problem, config, why) : 0;
}

int config_legal(const struct device *device, const struct kernel *kernel, const struct problem *problem,
                 const struct config *config, struct error *why) {
    for (int i = 0; i < kernel->parameter_count; i++)
        if (check_value(kernel, i, config->value[i], why)) return -1;
    return check_rules(device, kernel, problem, config, why);
}

long config_space(const struct kernel *kernel) {
    long size = 1;
    for (int i = 0; i < kernel->parameter_count; i++) size *= kernel->parameters[i].count;
    return size;
}

struct config config_at(const struct kernel *kernel, long index) {
    struct config config = {{0}};
    for (int i = kernel->parameter_count - 1; i >= 0; i--) {
        const struct parameter *p = &kernel->parameters[i];
        config.value[i] = p->values[index % p->count];
        index /= p->count;
    }
    return config;
}

int config_default(const struct device *device, const struct kernel *kernel, const struct problem *problem,
                   struct config *config, struct error *error) {
    double least = 0;
    bool found = false;
    const long space = config_space(kernel);
    for (long i = 0; i < space; i++) {
        struct config candidate = config_at(kernel, i);
        if (check_rules(device, kernel, problem, &candidate, NULL)) continue;
        double estimate = kernel->estimate(device, problem, &candidate);
        if (found && estimate >= least) continue;
        least = estimate;
        *config = candidate;
        found = true;
    }
    if (found) return 0;
    char text[128];
    struct error why = {""};
    const struct config last = config_at(kernel, space - 1);
    config_legal(device, kernel, problem, &last, &why);
    return error_set(error, "%s/%s has no legal configuration for %s: %s", op_name(kernel->op), kernel->name,
                     problem_text(problem, text), why.text);
}
