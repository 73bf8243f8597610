#include "tuner/export.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Values that are whole numbers become JSON's integers, others stay text. */
static json_t *configuration_json(const char *text) {
    json_t *object = json_object();
    while (object && *text && strcmp(text, "-")) {
        const char *equals = strchr(text, '='), *end = text + strcspn(text, " ");
        char name[160], value[160], *rest;
        snprintf(name, sizeof name, "%.*s", (int)(equals - text), text);
        snprintf(value, sizeof value, "%.*s", (int)(end - equals - 1), equals + 1);
        long number = strtol(value, &rest, 10);
        json_object_set_new(object, name, *rest ? json_string(value) : json_integer(number));
        text = end + (*end == ' ');
    }
    return object;
}

static json_t *row_json(const struct tile_row *row) {
    return json_pack("{ss sI sI sI sI sI ss so sf sf si sf}", "op", row->op, "k", (json_int_t)row->k, "n",
                     (json_int_t)row->n, "group", (json_int_t)row->group, "m_low", (json_int_t)row->m_low, "m_high",
                     (json_int_t)row->m_high, "kernel", row->kernel, "configuration",
                     configuration_json(row->configuration), "us", row->us, "gbs", row->gbs, "tie", row->tie,
                     "default_us", row->default_us);
}

int export_json(const struct tile_table *table, FILE *stream) {
    json_t *rows = json_array();
    json_t *root = json_pack("{si ss ss si ss ss ss so}", "version", TILES_VERSION, "device", table->device,
                             "architecture", table->architecture, "multiprocessors", table->multiprocessors, "software",
                             table->software, "kernels", table->kernels, "regime", table->regime, "rows", rows);
    int bad = !root;
    for (size_t i = 0; i < table->count && !bad; i++) bad = json_array_append_new(rows, row_json(&table->rows[i]));
    if (!bad) bad = json_dumpf(root, stream, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) || fputc('\n', stream) == EOF;
    json_decref(root);
    return bad ? -1 : 0;
}

static void csv_text(FILE *stream, const char *text) {
    if (!strpbrk(text, ",\"")) {
        fprintf(stream, "%s,", text);
        return;
    }
    fputc('"', stream);
    for (; *text; text++) fprintf(stream, *text == '"' ? "\"\"" : "%c", *text);
    fputs("\",", stream);
}

void export_csv(const struct tile_table *table, FILE *stream) {
    fputs("op,k,n,group,m_low,m_high,kernel,configuration,us,gbs,tie,default_us\n", stream);
    for (size_t i = 0; i < table->count; i++) {
        const struct tile_row *row = &table->rows[i];
        csv_text(stream, row->op);
        fprintf(stream, "%ld,%ld,%ld,%ld,%ld,", row->k, row->n, row->group, row->m_low, row->m_high);
        csv_text(stream, row->kernel);
        csv_text(stream, row->configuration);
        fprintf(stream, "%.2f,%.1f,%d,%.2f\n", row->us, row->gbs, row->tie, row->default_us);
    }
}

void export_c_string(FILE *stream, const char *text) {
    fputc('"', stream);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        fprintf(stream, *c < 32 || *c > 126 || strchr("\"\\?", *c) ? "\\%03o" : "%c", *c);
    fputc('"', stream);
}

static void c_macro(FILE *stream, const char *name, const char *text) {
    fprintf(stream, "#define TILEBOOK_TABLE_%s ", name);
    export_c_string(stream, text);
    fputc('\n', stream);
}

static const char c_head[] = "/* A tile table, exported by `tilebook table export --format c`. */\n"
                             "#ifndef TILEBOOK_TABLE_H\n"
                             "#define TILEBOOK_TABLE_H\n\n"
                             "#include <stddef.h>\n"
                             "#include <string.h>\n\n";

static const char c_struct[] = "\n/* The best kernel for y (m, n) = x (m, k) W (k, n) where m_low <= m <= m_high. */\n"
                               "struct tilebook_row {\n"
                               "    const char *op;\n"
                               "    long k, n, group, m_low, m_high;\n"
                               "    const char *kernel, *configuration; /* \"name=value name=value\", or \"-\" */\n"
                               "    double us, gbs;                     /* measured at m_high */\n"
                               "    int tie;                            /* other configurations within the noise */\n"
                               "    double default_us;\n"
                               "};\n\n";

static const char c_find[] =
    "    };\n"
    "    const struct tilebook_row *found = NULL;\n"
    "    for (const struct tilebook_row *row = rows; row->op; row++)\n"
    "        if (!strcmp(row->op, op) && row->k == k && row->n == n && row->group == group && row->m_low <= m)\n"
    "            found = row;\n"
    "    return found;\n"
    "}\n\n"
    "#endif\n";

static void c_row(FILE *stream, const struct tile_row *row) {
    fputs("        {", stream);
    export_c_string(stream, row->op);
    fprintf(stream, ", %ld, %ld, %ld, %ld, %ld, ", row->k, row->n, row->group, row->m_low, row->m_high);
    export_c_string(stream, row->kernel);
    fputs(", ", stream);
    export_c_string(stream, row->configuration);
    fprintf(stream, ", %.2f, %.1f, %d, %.2f},\n", row->us, row->gbs, row->tie, row->default_us);
}

void export_c(const struct tile_table *table, FILE *stream) {
    fputs(c_head, stream);
    c_macro(stream, "DEVICE", table->device);
    c_macro(stream, "ARCHITECTURE", table->architecture);
    fprintf(stream, "#define TILEBOOK_TABLE_MULTIPROCESSORS %d\n", table->multiprocessors);
    c_macro(stream, "SOFTWARE", table->software);
    c_macro(stream, "KERNELS", table->kernels);
    c_macro(stream, "REGIME", table->regime);
    fputs(c_struct, stream);
    fputs(
        "/* The row whose range holds m; above the last range the last row; NULL if there is none. */\n"
        "static inline const struct tilebook_row *tilebook_find(const char *op, long k, long n, long group, long m) {\n"
        "    static const struct tilebook_row rows[] = {\n",
        stream);
    for (size_t i = 0; i < table->count; i++) c_row(stream, &table->rows[i]);
    fputs("        {NULL, 0, 0, 0, 0, 0, NULL, NULL, 0, 0, 0, 0},\n", stream);
    fputs(c_find, stream);
}
