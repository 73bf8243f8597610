#include "bench/markdown.h"

#include <string.h>

static const char *get(const struct context *context, const char *key) {
    for (int i = 0; i < context->count; i++)
        if (!strcmp(context->entries[i].key, key)) return context->entries[i].value;
    return "";
}

void markdown_begin(FILE *file, const struct context *context, bool beside) {
    const char *cupti = get(context, "cupti");
    const char *clock = !strcmp(cupti, "none") ? "monotonic" : strcmp(cupti, "not attached") ? cupti : "events";
    fprintf(file, "%s (%s), %s, kernels %s; cache %s, launch %s, pace %s, clock %s; ", get(context, "device"),
            get(context, "architecture"), get(context, "software"), get(context, "kernels"), get(context, "cache"),
            get(context, "launch"), get(context, "pace"), clock);
    fprintf(file, "ceilings measured here: %s GB/s, %s TFLOP/s.\n\n", get(context, "read_gbs"),
            get(context, "matrix_tflops"));
    fprintf(file,
            "| kernel | weights | M | configuration | us | p20..p80 | GB/s | of the ceiling | TFLOP/s | of the "
            "ceiling |%s\n| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |%s\n",
            beside ? " over the read floor | speed-up over cuBLASLt |" : "", beside ? " ---: | ---: |" : "");
}

/* "qkv 5120x7168, group 128, zeros, bias, bf16" */
static void put_weights(FILE *file, const struct row *row) {
    const struct problem *p = row->problem;
    char size[32], fused[FUSED_TEXT];
    bool fuses = p->epilogue || p->norm;
    snprintf(size, sizeof size, "%dx%d", p->k, p->n);
    fprintf(file, "| %s%s%s", strcmp(size, row->layer) ? row->layer : "", strcmp(size, row->layer) ? " " : "", size);
    if (p->group) fprintf(file, ", group %d", p->group);
    fprintf(file, "%s%s%s%s ", p->zeros ? ", zeros" : "", fuses ? ", " : "", fuses ? problem_fused(p, fused) : "",
            p->bf16 ? ", bf16" : "");
}

/* A ratio, or nothing where there is none. */
static void put_ratio(FILE *file, double above, double below) {
    if (above > 0 && below > 0)
        fprintf(file, " %.2f |", above / below);
    else
        fprintf(file, " |");
}

void markdown_put(FILE *file, const struct row *row, const struct ceilings *ceilings, bool beside) {
    fprintf(file, "| %s ", row->kernel);
    put_weights(file, row);
    fprintf(file, "| %d | %s |", row->problem->m, row->config);
    if (!(row->us > 0)) {
        fprintf(file, " failed | | | | | |%s\n", beside ? " | |" : "");
        return;
    }
    double gbs = problem_bytes(row->problem) / row->us / 1e3, tflops = problem_flops(row->problem) / row->us / 1e6;
    fprintf(file, " %.2f%s | %.2f..%.2f | %.4g | %.1f %% | %.3g | %.1f %% |", row->us,
            row->throttled ? " (throttled)" : "", row->p20_us, row->p80_us, gbs, 100 * gbs / ceilings->read_gbs, tflops,
            100 * tflops / ceilings->matrix_tflops);
    if (beside) put_ratio(file, row->us, row->floor_us);
    if (beside) put_ratio(file, row->cublas_us, row->us);
    fputc('\n', file);
}
