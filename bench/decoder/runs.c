#include "bench/decoder/runs.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/decoder/process.h"
#include "bench/nvml.h"

/* What an idle card holds, and how long a process that has ended may take to give its memory back. */
static const size_t idle_bytes = (size_t)64 << 20;
static const double settle_s = 5, look_s = 0.1;

enum { ABOUT = 4096 };

struct table {
    const struct decode_options *options;
    struct model_config config;
    struct device device; /* as it was: nothing is open on it in this process */
    FILE *csv, *markdown;
    json_t *rows; /* with --json */
    int made;     /* rows with figures */
    size_t held;  /* bytes of the card, before the first row */
    bool looked;
};

static struct runs_row empty_row(const struct decode_options *o, const char *method) {
    struct runs_row row = {.method = method, .kv = o->kv};
    for (double *number = &row.batch; number <= &row.perplexity; number++) *number = NAN;
    return row;
}

/* --- one run --- */

struct command_line {
    const char *list[32];
    int count;
    char numbers[5][24];
};

static void add(struct command_line *a, const char *option, const char *value) {
    a->list[a->count++] = option;
    if (value) a->list[a->count++] = value;
}

static void add_number(struct command_line *a, int which, const char *option, unsigned long long value) {
    snprintf(a->numbers[which], sizeof a->numbers[which], "%llu", value);
    add(a, option, a->numbers[which]);
}

static void make_arguments(const struct decode_options *o, const struct device *device, const char *method,
                           struct command_line *a) {
    *a = (struct command_line){.list = {"tilebook", "decode", "--json"}, .count = 3};
    add(a, "--model", o->model);
    add(a, "--quantization", method);
    add(a, "--device", device->id);
    add(a, "--kv", kv_name(o->kv));
    if (o->in_memory) add(a, "--in-memory", NULL);
    if (o->untuned) add(a, "--untuned", NULL);
    if (o->table) add(a, "--table", o->table);
    if (o->misses) add(a, "--misses", o->misses);
    add_number(a, 0, "--seed", o->seed);
    add_number(a, 4, "--tp", (unsigned long long)o->tp);
}

static void bench_arguments(const struct decode_options *o, const struct runs_row *row, struct command_line *a) {
    add(a, "--bench", NULL);
    add_number(a, 1, "--batch", (unsigned long long)row->batch);
    add_number(a, 2, "--max-tokens", (unsigned long long)o->max_tokens);
    if (o->ctx) add_number(a, 3, "--ctx", (unsigned long long)row->ctx);
}

/* The first line of what it said, without the program's name. */
static void say_failure(const struct process_result *result, char *note, size_t size) {
    static const char name[] = "tilebook decode: ";
    const char *text = result->err;
    if (!strncmp(text, name, strlen(name))) text += strlen(name);
    if (WIFSIGNALED(result->status))
        snprintf(note, size, "ended by signal %d (%s)", WTERMSIG(result->status), strsignal(WTERMSIG(result->status)));
    else
        snprintf(note, size, "%.*s", (int)strcspn(text, "\n"), text);
    if (!*note) snprintf(note, size, "exit code %d", WEXITSTATUS(result->status));
}

struct figure {
    const char *key;
    double *value;
};

static int read_numbers(const json_t *object, const struct figure *figures, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const json_t *number = json_object_get(object, figures[i].key);
        if (!json_is_number(number)) return -1;
        *figures[i].value = json_number_value(number);
    }
    return 0;
}

static int read_memory(const json_t *memory, struct runs_row *row) {
    const struct figure parts[] = {
        {"weights_bytes", &row->weights_gib}, {"kv_bytes", &row->kv_gib}, {"scratch_bytes", &row->scratch_gib}};
    if (read_numbers(memory, parts, 3)) return -1;
    for (int i = 0; i < 3; i++) *parts[i].value /= 1 << 30;
    row->total_gib = row->weights_gib + row->kv_gib + row->scratch_gib;
    return 0;
}

/* -1 unless the text is what --bench --json writes. */
static int read_figures(const char *text, struct runs_row *row) {
    const struct figure figures[] = {
        {"tok_s", &row->decode_tok_s},
        {"prefill_tok_s", &row->prefill_tok_s},
        {"prefill_ms", &row->ttft_ms},
        {"prefill_ms_sd", &row->ttft_sd_ms},
        {"prefills", &row->prefills},
        {"ms_per_token_mean", &row->mean_ms},
        {"ms_per_token_sd", &row->sd_ms},
        {"ms_per_token", &row->p50_ms},
        {"ms_per_token_p99", &row->p99_ms},
        {"decode_steps", &row->steps},
        {"gb_s", &row->gb_s},
        {"ceiling_gb_s", &row->ceiling_gb_s},
    };
    json_t *object = json_loads(text, JSON_ALLOW_NUL, NULL);
    int status = read_numbers(object, figures, sizeof figures / sizeof *figures) ||
                         read_memory(json_object_get(object, "memory"), row)
                     ? -1
                     : 0;
    row->prompt = (double)json_array_size(json_object_get(object, "prompt_ids"));
    row->share = 100 * row->gb_s / row->ceiling_gb_s;
    json_decref(object);
    return status;
}

/* Waits until the rows before have given their memory back, and says who holds the rest. */
static void check_memory(struct table *table) {
    struct gpu_use use;
    char text[NVML_USE];
    if (!nvml_use(&table->device, &use)) return;
    if (!table->looked) table->held = use.used;
    table->looked = true;
    for (double waited = 0; use.used > table->held + idle_bytes && waited < settle_s; waited += look_s) {
        usleep((useconds_t)(look_s * 1e6));
        nvml_use(&table->device, &use);
    }
    if (use.used > idle_bytes)
        fprintf(stderr, "tilebook decode: before the next row: %s\n", nvml_use_text(&table->device, &use, text));
}

/* Runs it and reads what it prints. Not -1 if only that fails: then the note says why. */
static int run(struct table *table, const struct command_line *arguments,
               int (*read)(const char *text, struct runs_row *), struct runs_row *row, struct error *error) {
    struct process_result result;
    check_memory(table);
    if (process_run((char *const *)arguments->list, &result, error)) return -1;
    if (result.status)
        say_failure(&result, row->note, sizeof row->note);
    else if (read(result.out, row))
        snprintf(row->note, sizeof row->note, "its figures cannot be read");
    if (!result.status) fputs(result.err, stderr);
    process_free(&result);
    return 0;
}

static int run_row(struct table *table, struct runs_row *row, struct error *error) {
    struct command_line arguments;
    make_arguments(table->options, &table->device, row->method, &arguments);
    bench_arguments(table->options, row, &arguments);
    if (run(table, &arguments, read_figures, row, error)) return -1;
    table->made += !*row->note;
    return 0;
}

static int read_perplexity(const char *text, struct runs_row *row) {
    json_t *object = json_loads(text, JSON_ALLOW_NUL, NULL);
    int status = json_unpack(object, "{s:F}", "perplexity", &row->perplexity);
    json_decref(object);
    return status;
}

/* NaN if it cannot be had; then stderr says why. */
static int run_perplexity(struct table *table, const char *method, double *perplexity, struct error *error) {
    const struct decode_options *o = table->options;
    struct command_line arguments;
    struct runs_row row = empty_row(o, method);
    *perplexity = NAN;
    if (!o->perplexity) return 0;
    make_arguments(o, &table->device, method, &arguments);
    add(&arguments, "--perplexity", o->perplexity);
    if (run(table, &arguments, read_perplexity, &row, error)) return -1;
    if (*row.note) fprintf(stderr, "tilebook decode: no perplexity of %s: %s\n", method, row.note);
    *perplexity = row.perplexity;
    return 0;
}

/* --- all of them --- */

static int put(struct table *table, const struct runs_row *row, struct error *error) {
    bool perplexity = table->options->perplexity != NULL;
    if (table->csv) runs_csv_put(table->csv, row, perplexity);
    if (table->markdown) runs_markdown_put(table->markdown, row, perplexity);
    if (!table->rows) runs_text_put(stdout, row, perplexity);
    if (table->rows && json_array_append_new(table->rows, runs_json(row))) return error_set(error, "out of memory");
    return 0;
}

static int run_method(struct table *table, enum method method, struct error *error) {
    const struct decode_options *o = table->options;
    struct model_config config;
    enum method resolved;
    struct error why;
    const struct counts *contexts = &o->contexts, *batches = &o->batches;
    if (decode_options_config(o, method, &config, &resolved, &why)) {
        struct runs_row row = empty_row(o, method_name(method));
        snprintf(row.note, sizeof row.note, "%.*s", (int)strcspn(why.text, "\n"), why.text);
        return put(table, &row, error);
    }
    double perplexity;
    if (run_perplexity(table, method_name(resolved), &perplexity, error)) return -1;
    for (int c = 0; c < contexts->count || !c; c++)
        for (int b = 0; b < batches->count || !b; b++) {
            struct runs_row row = empty_row(o, method_name(resolved));
            int longest = config.max_position < BENCH_CONTEXT ? config.max_position : BENCH_CONTEXT;
            row.ctx = contexts->count ? contexts->list[c] : longest;
            row.batch = batches->count ? batches->list[b] : 1;
            row.tuned = o->table && !o->untuned;
            row.perplexity = perplexity;
            if (run_row(table, &row, error) || put(table, &row, error)) return -1;
        }
    return 0;
}

static int run_methods(struct table *table, struct error *error) {
    const struct decode_options *o = table->options;
    if (!o->report || o->method != METHOD_AUTO) return run_method(table, o->method, error);
    for (int method = METHOD_NONE; method <= METHOD_GPTQ_MARLIN; method++)
        if (run_method(table, (enum method)method, error)) return -1;
    return 0;
}

static void describe(const struct table *table, char text[ABOUT]) {
    const struct decode_options *o = table->options;
    const struct device *device = &table->device;
    char shared[96] = "";
    if (o->tp > 1) snprintf(shared, sizeof shared, " Shared by %d devices (--tp): GB/s and memory are of one.", o->tp);
    snprintf(text, ABOUT,
             "%s%s on %s (%s, %s), %s, kernels %s, tiles: %s, KV cache: %s. Each row ran in a process of its own, "
             "warmed up, greedily to the end of its context; first token: of every sequence; GB/s: weights and the "
             "cached keys and values, each byte once; ceiling: reading memory, measured in the same process.%s%s%s%s",
             o->model, o->in_memory || table->config.synthetic ? ", synthetic weights," : "", device->name, device->id,
             device->architecture, device->software, device->kernels,
             o->table && !o->untuned ? o->table : "built-in defaults", kv_name(o->kv), shared,
             o->perplexity ? " Perplexity: of " : "", o->perplexity ? o->perplexity : "",
             o->perplexity ? ", in a process a method." : "");
}

/* What device and model are: an error of theirs would be that of every row. */
static int look(struct table *table, struct error *error) {
    struct device *device;
    enum method method;
    if (decode_options_config(table->options, METHOD_AUTO, &table->config, &method, error)) return -1;
    if (device_open(table->options->device, &device, error)) return -1;
    table->device = *device;
    device_close(device);
    return 0;
}

static int open_files(struct table *table, const char *about, struct error *error) {
    const struct decode_options *o = table->options;
    bool perplexity = o->perplexity != NULL;
    if (o->csv && !(table->csv = fopen(o->csv, "w"))) return error_set(error, "--csv %s: %s", o->csv, strerror(errno));
    if (o->markdown && !(table->markdown = fopen(o->markdown, "w")))
        return error_set(error, "--markdown %s: %s", o->markdown, strerror(errno));
    if (o->json && !(table->rows = json_array())) return error_set(error, "out of memory");
    if (table->csv) runs_csv_begin(table->csv, o->kv, perplexity);
    if (table->markdown) runs_markdown_begin(table->markdown, about, perplexity);
    if (!o->json) runs_text_begin(stdout, about, perplexity);
    return 0;
}

/* True if there was a file and it is not complete. */
static bool close_file(FILE *file) {
    bool failed = file && ferror(file);
    return (file && fclose(file)) || failed;
}

static int print_json(const struct table *table, const char *about, struct error *error) {
    const struct device *device = &table->device;
    json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:O}", "about", about, "model", table->options->model, "device",
                               device->id, "device_name", device->name, "rows", table->rows);
    int status = object ? json_dumpf(object, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : -1;
    json_decref(object);
    putchar('\n');
    return status ? error_set(error, "the JSON could not be written") : 0;
}

int runs_table(const struct decode_options *options, struct error *error) {
    struct table table = {.options = options};
    char about[ABOUT];
    int status = look(&table, error);
    if (!status) describe(&table, about);
    status = status || open_files(&table, about, error) || run_methods(&table, error) ? -1 : 0;
    if (!status && table.rows) status = print_json(&table, about, error);
    json_decref(table.rows);
    bool csv = close_file(table.csv), markdown = close_file(table.markdown);
    if (!status && (csv || markdown))
        status = error_set(error, "--csv or --markdown could not be written; is the disk full?");
    if (!status && !table.made) status = error_set(error, "no row has figures; each says why");
    return status;
}
