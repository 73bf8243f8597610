/* What `tilebook compare` prints. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "bench/compare.h"

static const char *const verdicts[] = {"tie", "faster", "slower"};
static const char *const formats[] = {"text", "csv", "markdown", "json"};
static const char *const bases[] = {"samples", "p20..p80", "rounds"};
static const char csv_header[] = "name,verdict,ratio,low,high,a_us,a_p20,a_p80,a_n,b_us,b_p20,b_p80,b_n,basis,p,noise";

enum { BASIS_TEXT = 64 };

int compare_format_parse(const char *text, enum compare_format *format, struct error *error) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(text, formats[i])) {
            *format = (enum compare_format)i;
            return 0;
        }
    return error_set(error, "unknown format '%s'; accepted: text, csv, markdown, json", text);
}

static const char *basis_text(const struct compare_row *row, char text[BASIS_TEXT]) {
    if (row->basis == BASIS_SAMPLES)
        snprintf(text, BASIS_TEXT, "p=%.2g", row->p);
    else if (row->basis == BASIS_ROUNDS)
        snprintf(text, BASIS_TEXT, "%.4f..%.4f A/A %.2f%%", row->low, row->high, 100 * row->noise);
    else
        snprintf(text, BASIS_TEXT, "%s", bases[row->basis]);
    return text;
}

/* "12 rows: 1 faster, 2 slower, 9 tied; overall B/A 1.0020 (geometric mean; 95% ...): tie" */
static void write_summary(FILE *file, const struct compare *compare) {
    const struct compare_total *total = &compare->total;
    int count[3] = {0};
    for (int i = 0; i < compare->count; i++) count[compare->rows[i].verdict]++;
    fprintf(file, "%d row%s: %d faster, %d slower, %d tied", compare->count, compare->count == 1 ? "" : "s",
            count[VERDICT_FASTER], count[VERDICT_SLOWER], count[VERDICT_TIE]);
    if (!compare->count) return;
    fprintf(file, "; overall B/A %.4f (geometric mean", total->ratio);
    if (total->low > 0)
        fprintf(file, "; 95%% interval %.4f..%.4f by Student's t on the logarithms", total->low, total->high);
    fprintf(file, "): %s", verdicts[total->verdict]);
}

static void write_text(FILE *file, const struct compare *compare, const char *a, const char *b) {
    char basis[BASIS_TEXT];
    fprintf(file, "A: %s\nB: %s\n\n", a, b);
    fprintf(file, "%-8s %7s %12s %12s  %-29s %s\n", "B is", "B/A", "A us", "B us", "decided by", "row");
    for (int i = 0; i < compare->count; i++) {
        const struct compare_row *row = &compare->rows[i];
        fprintf(file, "%-8s %7.4f %12.4f %12.4f  %-29s %s\n", verdicts[row->verdict], row->ratio, row->a.us, row->b.us,
                basis_text(row, basis), row->name);
    }
    for (int i = 0; i < compare->missing_count; i++)
        fprintf(file, "%s: %s\n", compare->missing[i].why, compare->missing[i].name);
    fprintf(file, "\n");
    write_summary(file, compare);
    fprintf(file, "\n");
}

/* A cell; what would end it is replaced. */
static void write_cell(FILE *file, const char *text) {
    for (; *text; text++) fputc(*text == '|' || *text == '\n' ? ' ' : *text, file);
}

static void write_markdown(FILE *file, const struct compare *compare, const char *a, const char *b) {
    char basis[BASIS_TEXT];
    fprintf(file, "A: `%s`, B: `%s`\n\n", a, b);
    fprintf(file, "| row | A us | B us | B/A | decided by | B is |\n| --- | ---: | ---: | ---: | --- | --- |\n");
    for (int i = 0; i < compare->count; i++) {
        const struct compare_row *row = &compare->rows[i];
        fprintf(file, "| ");
        write_cell(file, row->name);
        fprintf(file, " | %.4f | %.4f | %.4f | %s | %s |\n", row->a.us, row->b.us, row->ratio, basis_text(row, basis),
                verdicts[row->verdict]);
    }
    for (int i = 0; i < compare->missing_count; i++) {
        fprintf(file, "| ");
        write_cell(file, compare->missing[i].name);
        fprintf(file, " | | | | | ");
        write_cell(file, compare->missing[i].why);
        fprintf(file, " |\n");
    }
    fprintf(file, "\n");
    write_summary(file, compare);
    fprintf(file, "\n");
}

/* A quoted field. */
static void write_field(FILE *file, const char *text) {
    fputc('"', file);
    for (; *text; text++) fprintf(file, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', file);
}

static void write_csv_side(FILE *file, const struct compare_side *side) {
    fprintf(file, ",%.4f,%.4f,%.4f,%d", side->us, side->p20_us, side->p80_us, side->samples);
}

/* Empty but for the basis that has it. */
static void write_csv_figure(FILE *file, const struct compare_row *row, enum compare_basis basis, double value) {
    if (row->basis == basis)
        fprintf(file, ",%.6g", value);
    else
        fputc(',', file);
}

/* Behind the rows the overall line and what is missing, with the figures that they have. */
static void write_csv(FILE *file, const struct compare *compare) {
    fprintf(file, "%s\n", csv_header);
    for (int i = 0; i < compare->count; i++) {
        const struct compare_row *row = &compare->rows[i];
        write_field(file, row->name);
        fprintf(file, ",%s,%.6f", verdicts[row->verdict], row->ratio);
        write_csv_figure(file, row, BASIS_ROUNDS, row->low);
        write_csv_figure(file, row, BASIS_ROUNDS, row->high);
        write_csv_side(file, &row->a);
        write_csv_side(file, &row->b);
        fprintf(file, ",%s", bases[row->basis]);
        write_csv_figure(file, row, BASIS_SAMPLES, row->p);
        write_csv_figure(file, row, BASIS_ROUNDS, row->noise);
        fputc('\n', file);
    }
    if (compare->count)
        fprintf(file, "\"overall\",%s,%.6f,%.6f,%.6f,,,,,,,,,,,\n", verdicts[compare->total.verdict],
                compare->total.ratio, compare->total.low, compare->total.high);
    for (int i = 0; i < compare->missing_count; i++) {
        write_field(file, compare->missing[i].name);
        fputc(',', file);
        write_field(file, compare->missing[i].why);
        fprintf(file, ",,,,,,,,,,,,,,\n");
    }
}

static json_t *json_side(const struct compare_side *side) {
    return json_pack("{s:f,s:f,s:f,s:i}", "us", side->us, "p20_us", side->p20_us, "p80_us", side->p80_us, "n",
                     side->samples);
}

/* Of the basis that has it; null otherwise. */
static json_t *json_figure(const struct compare_row *row, enum compare_basis basis, double value) {
    return row->basis == basis ? json_real(value) : json_null();
}

static json_t *json_row(const struct compare_row *row) {
    return json_pack("{s:s,s:s,s:f,s:o,s:o,s:o,s:o,s:s,s:o,s:o}", "name", row->name, "verdict", verdicts[row->verdict],
                     "ratio", row->ratio, "low", json_figure(row, BASIS_ROUNDS, row->low), "high",
                     json_figure(row, BASIS_ROUNDS, row->high), "a", json_side(&row->a), "b", json_side(&row->b),
                     "basis", bases[row->basis], "p", json_figure(row, BASIS_SAMPLES, row->p), "noise",
                     json_figure(row, BASIS_ROUNDS, row->noise));
}

static int write_json(FILE *file, const struct compare *compare, const char *a, const char *b) {
    const struct compare_total *total = &compare->total;
    json_t *rows = json_array(), *missing = json_array(), *overall = json_null();
    for (int i = 0; i < compare->count; i++) json_array_append_new(rows, json_row(&compare->rows[i]));
    for (int i = 0; i < compare->missing_count; i++) {
        const struct compare_missing *one = &compare->missing[i];
        json_array_append_new(missing,
                              json_pack("{s:s,s:s,s:b}", "name", one->name, "why", one->why, "worse", (int)one->worse));
    }
    if (compare->count)
        overall = json_pack("{s:s,s:f,s:f,s:f}", "verdict", verdicts[total->verdict], "ratio", total->ratio, "low",
                            total->low, "high", total->high);
    json_t *object = json_pack("{s:s,s:s,s:f,s:b,s:o,s:o,s:o}", "a", a, "b", b, "margin", compare->margin, "regressed",
                               (int)compare_regressed(compare), "rows", rows, "missing", missing, "overall", overall);
    int result = object ? json_dumpf(object, file, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : -1;
    json_decref(object);
    fputc('\n', file);
    return result;
}

int compare_write(FILE *file, const struct compare *compare, enum compare_format format, const char *a, const char *b,
                  struct error *error) {
    if (format == FORMAT_TEXT)
        write_text(file, compare, a, b);
    else if (format == FORMAT_MARKDOWN)
        write_markdown(file, compare, a, b);
    else if (format == FORMAT_CSV)
        write_csv(file, compare);
    else if (write_json(file, compare, a, b))
        return error_set(error, "the comparison could not be written as JSON: out of memory, or a name is not UTF-8");
    return 0;
}
