/* tilebook decode over many methods, batches and contexts, each run in a process of its own. */
#include "tests/command.h"

#include <jansson.h>
#include <math.h>

#define AWQ "decode --device cpu --model tests/fixtures/tiny-qwen2-awq "
#define HEADER                                                                                                         \
    "method,batch,ctx,prompt,tuned,decode_tok_s,prefill_tok_s,ttft_ms,p50_ms,p99_ms,gb_s,weights_gib,kv_gib,total_gib"

static char *slurp(const char *name) {
    static char text[16384];
    FILE *file = fopen(in_folder(name), "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return text;
}

/* Fields of a line, and how many of them are positive numbers. */
static int count_fields(char *line, int *positive) {
    int fields = 0;
    *positive = 0;
    for (char *field; (field = strsep(&line, ",")); fields++) *positive += strtod(field, NULL) > 0;
    return fields;
}

static void a_checkpoint_has_a_row_a_method(void **state) {
    (void)state;
    static const char *const methods[] = {"none,,", "awq,1,24,20,0,", "awq_marlin,1,24,20,0,", "gptq,,",
                                          "gptq_marlin,,"};
    char *rest, line[512];
    expect(
        0, AWQ "--report --ctx 24 -n 4 --csv @/table.csv --markdown @/table.md",
        "batch 1, context 24, untuned         awq  |batch 1, context 24, untuned         awq_marlin  |quantised with "
        "AWQ|quantisation|total GiB");
    rest = slurp("table.csv");
    assert_string_equal(strsep(&rest, "\n"), HEADER);
    for (int i = 0; i < 5; i++) {
        int positive;
        snprintf(line, sizeof line, "%s", strsep(&rest, "\n"));
        if (strncmp(line, methods[i], strlen(methods[i]))) fail_msg("'%s' is not of %s", line, methods[i]);
        assert_int_equal(count_fields(line, &positive), 14);
        assert_true(i == 1 || i == 2 ? positive >= 9 : !positive);
    }
    assert_string_equal(rest, "");
    rest = strstr(slurp("table.md"), "| configuration");
    assert_non_null(rest);
    for (int lines = 0; *rest; lines++) {
        int bars = 0;
        for (char *c = strsep(&rest, "\n"); *c; c++) bars += *c == '|';
        assert_int_equal(bars, 17);
        assert_true(lines < 7);
    }
}

static json_t *rows_of(const char *arguments, size_t count) {
    char line[512];
    snprintf(line, sizeof line, "$TILEBOOK %s >%s", arguments, in_folder("rows.json"));
    if (shell(line)) fail_msg("%s: %s", arguments, output);
    json_t *object = json_load_file(in_folder("rows.json"), 0, NULL), *rows = json_object_get(object, "rows");
    assert_int_equal(json_array_size(rows), count);
    json_incref(rows);
    json_decref(object);
    return rows;
}

static double number(const json_t *row, const char *key) {
    return json_number_value(json_object_get(row, key));
}

static void a_shape_in_memory_has_them_all(void **state) {
    (void)state;
    static const char *const methods[] = {"none", "awq", "awq_marlin", "gptq", "gptq_marlin"};
    static const char *const keys[] = {"decode_tok_s", "prefill_tok_s", "ttft_ms", "mean_ms", "p50_ms",
                                       "p99_ms",       "gb_s",          "share",   "kv_gib",  "scratch_gib"};
    json_t *rows = rows_of(AWQ "--in-memory --report --json --ctx 24 -n 4", 5);
    for (size_t i = 0; i < 5; i++) {
        const json_t *row = json_array_get(rows, i);
        assert_string_equal(json_string_value(json_object_get(row, "method")), methods[i]);
        assert_null(json_object_get(row, "note"));
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) assert_true(number(row, keys[k]) > 0);
        assert_true(number(row, "steps") == 3);
        assert_float_equal(number(row, "weights_gib") + number(row, "kv_gib") + number(row, "scratch_gib"),
                           number(row, "total_gib"), 1e-8);
    }
    json_decref(rows);
}

static void lists_make_a_table_of_one_method(void **state) {
    (void)state;
    json_t *rows = rows_of(AWQ "--bench --json --batch 1,3 --ctx 20,70 -n 4", 4); /* a page has 64 */
    for (size_t i = 0; i < 4; i++) {
        const json_t *row = json_array_get(rows, i);
        assert_string_equal(json_string_value(json_object_get(row, "method")), "awq_marlin");
        assert_true(number(row, "ctx") == (i < 2 ? 20 : 70) && number(row, "batch") == (i % 2 ? 3 : 1));
        assert_true(number(row, "prompt") == number(row, "ctx") - 4);
        assert_float_equal(number(row, "kv_gib"),
                           number(json_array_get(rows, 0), "kv_gib") * number(row, "batch") * (i < 2 ? 1 : 2), 1e-9);
    }
    json_decref(rows);
}

static void what_fails_is_a_row(void **state) {
    (void)state;
    json_t *rows = rows_of(AWQ "--report -q awq --json --ctx 4,24,1024 -n 4", 3);
    assert_non_null(strstr(json_string_value(json_object_get(json_array_get(rows, 0), "note")), "--max-tokens 4"));
    assert_null(json_object_get(json_array_get(rows, 1), "note"));
    assert_non_null(strstr(json_string_value(json_object_get(json_array_get(rows, 2), "note")), "--ctx 1024"));
    assert_true(number(json_array_get(rows, 2), "ctx") == 1024);
    json_decref(rows);
    expect(1, AWQ "--report --ctx 4 -n 4", "--max-tokens 4|no row has figures");
    expect(1, AWQ "--report -q none --ctx 24 -n 4", "quantised with AWQ|no row has figures");
}

/* The model recites this text, so that its next token is rarely a surprise; a column of the table is the same figure.
 */
static void perplexity_of_a_text(void **state) {
    (void)state;
    double alone[2];
    for (int i = 0; i < 2; i++) {
        char line[256];
        snprintf(line, sizeof line, "$TILEBOOK " AWQ "-q %s --perplexity tests/fixtures/text.txt --json >%s",
                 i ? "awq_marlin" : "awq", in_folder("text.json"));
        if (shell(line)) fail_msg("%s", output);
        json_t *object = json_load_file(in_folder("text.json"), 0, NULL);
        alone[i] = number(object, "perplexity");
        assert_true(alone[i] > 1 && alone[i] < 4);
        assert_float_equal(log(alone[i]), number(object, "nats"), 1e-6);
        assert_true(number(object, "tokens") == number(object, "foretold") + number(object, "chunks"));
        assert_true(number(object, "chunk") == 512);
        json_decref(object);
    }
    json_t *rows =
        rows_of(AWQ "--report --json --ctx 20,24 -n 4 --perplexity tests/fixtures/text.txt --csv @/p.csv", 7);
    for (size_t i = 1; i < 5; i++)
        assert_float_equal(number(json_array_get(rows, i), "perplexity"), alone[i > 2], 1e-6);
    json_decref(rows);
    assert_non_null(strstr(slurp("p.csv"), HEADER ",perplexity\n"));
    expect(0, AWQ "--perplexity tests/fixtures/text.txt --ctx 100", "perplexity |chunks of 100|weights");
    expect(1, AWQ "--perplexity /nowhere", "/nowhere");
    expect(1, "decode --device cpu --in-memory --model qwen2.5-0.5b --perplexity tests/fixtures/text.txt",
           "tokenizer.json");
    expect_shell(1, "printf a | $TILEBOOK " AWQ "--perplexity -", "1 tokens");
    expect(2, AWQ "--report --perplexity -", "standard input");
    expect(2, AWQ "--bench --perplexity x", "--perplexity");
    expect(2, AWQ "--prompt x --perplexity x", "--perplexity takes no prompt");
}

static void nothing_runs_for_what_cannot_work(void **state) {
    (void)state;
    expect(1, "decode --device cpu --model /nowhere --report", "/nowhere");
    expect(1, AWQ "--report --csv /nowhere/x", "--csv /nowhere/x|No such file");
    expect(1, AWQ "--report -q awq --ctx 24 -n 4 --csv /dev/full", "could not be written");
    expect(2, AWQ "--report --prompt x", "--report takes no prompt");
    expect(2, AWQ "--prompt x --csv @/x", "--bench and --report");
    expect(2, AWQ "--prompt x --ctx 8,16", "--bench and --report");
    expect(2, AWQ "--bench --batch 1,,2", "--batch 1,,2|1,8,64");
    expect(2, AWQ "--bench --batch 4096", "--batch 4096|1 to 1024");
    expect(2, AWQ "--report --logits @/x", "--logits is for one run");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_has_a_row_a_method),
        cmocka_unit_test(a_shape_in_memory_has_them_all),
        cmocka_unit_test(lists_make_a_table_of_one_method),
        cmocka_unit_test(what_fails_is_a_row),
        cmocka_unit_test(perplexity_of_a_text),
        cmocka_unit_test(nothing_runs_for_what_cannot_work),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
