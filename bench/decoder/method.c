#include <stdio.h>
#include <string.h>

#include "bench/decoder/model.h"

static const char *const names[] = {"auto", "none", "awq", "awq_marlin", "gptq", "gptq_marlin"};
enum { METHODS = sizeof names / sizeof *names };

const char *method_name(enum method method) {
    return names[method];
}

int method_parse(const char *text, enum method *method, struct error *error) {
    for (int i = 0; i < METHODS; i++)
        if (!strcmp(text, names[i])) {
            *method = (enum method)i;
            return 0;
        }
    return error_set(
        error, "unknown quantization method '%s'; there are auto, none, awq, awq_marlin, gptq, gptq_marlin", text);
}

/* What each kind of checkpoint can run with, the fastest first. */
static const struct kind {
    enum method methods[2];
    int count;
    const char *accepted;
} kinds[] = {
    [QUANT_NONE] = {{METHOD_NONE}, 1, "none"},
    [QUANT_AWQ] = {{METHOD_AWQ_MARLIN, METHOD_AWQ}, 2, "awq_marlin, awq"},
    [QUANT_GPTQ] = {{METHOD_GPTQ_MARLIN, METHOD_GPTQ}, 2, "gptq_marlin, gptq"},
};

/* "is not quantised (config.json: no quantization_config, dtype bfloat16)" */
static void describe(const struct model_config *config, char *text, size_t size) {
    if (config->quant == QUANT_NONE)
        snprintf(text, size, "is not quantised (config.json: no quantization_config, dtype %s)", config->dtype);
    else
        snprintf(text, size, "is quantised with %s (%s: quant_method)", config->quant == QUANT_AWQ ? "AWQ" : "GPTQ",
                 config->quant_file);
}

int method_resolve(enum method asked, const struct model_config *config, const char *directory, enum method *method,
                   struct error *error) {
    const struct kind *kind = &kinds[config->quant];
    *method = kind->methods[0];
    if (asked == METHOD_AUTO) return 0;
    for (int i = 0; i < kind->count; i++)
        if (kind->methods[i] == asked) {
            *method = asked;
            return 0;
        }
    char what[128];
    describe(config, what, sizeof what);
    return error_set(error,
                     "--quantization %s was asked, but the checkpoint %s %s. It can run with: %s.\n"
                     "Next: tilebook decode --model %s --quantization %s",
                     method_name(asked), directory, what, kind->accepted, directory, method_name(kind->methods[0]));
}
