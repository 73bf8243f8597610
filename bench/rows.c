#include "bench/rows.h"

#include <errno.h>
#include <string.h>

/* NULL, or what is wrong with a file that is there and not empty. */
static const char *check_report(FILE *file) {
    char header[sizeof ROWS_HEADER "\n"] = "";
    if (!fgets(header, sizeof header, file) || strcmp(header, ROWS_HEADER "\n"))
        return "is not a report of this program: its first line is not '" ROWS_HEADER "'; name another file";
    if (fseek(file, -1, SEEK_END) || fgetc(file) != '\n')
        return "ends in the middle of a row; remove that row or name another file";
    return fseek(file, 0, SEEK_END) ? "cannot be appended to" : NULL;
}

int rows_open(const char *path, FILE **result, struct error *error) {
    const char *wrong = NULL;
    bool failed = false;
    FILE *file = fopen(path, "a+");
    if (!file) return error_set(error, "%s: %s", path, strerror(errno));
    if (fgetc(file) == EOF)
        failed = ferror(file) || fprintf(file, ROWS_HEADER "\n") < 0 || fflush(file);
    else if (!fseek(file, 0, SEEK_SET))
        wrong = check_report(file);
    if (!failed && !wrong) {
        *result = file;
        return 0;
    }
    error_set(error, "%s %s", path, wrong ? wrong : strerror(errno));
    fclose(file);
    return -1;
}

/* A number, or nothing for 0; "," before it. */
static int put_us(FILE *file, double us) {
    return us > 0 ? fprintf(file, ",%.4f", us) : fprintf(file, ",");
}

int rows_put(FILE *file, const struct row *row, struct error *error) {
    const struct problem *p = row->problem;
    char fused[FUSED_TEXT];
    fprintf(file, "%s,%s,%d,%d,%d,%d,%d,%s,%s,%s,%s", op_name(p->op), row->layer, p->k, p->n, p->group, p->zeros, p->m,
            problem_fused(p, fused), row->regime, row->kernel, row->config);
    put_us(file, row->us);
    put_us(file, row->p20_us);
    put_us(file, row->p80_us);
    put_us(file, row->floor_us);
    put_us(file, row->cublas_us);
    fputc('\n', file);
    return fflush(file) ? error_set(error, "the report could not be written: %s", strerror(errno)) : 0;
}
