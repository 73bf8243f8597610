/* Continuous batching on the CPU: what joins and leaves changes nobody's tokens, and no file does harm. */
#include "tests/command.h"
#include "tests/golden.h"

#define PLAIN FIXTURES "tiny-qwen2"
#define AWQ FIXTURES "tiny-qwen2-awq"
#define DECODE "$TILEBOOK decode --device cpu --temperature 0 --model " AWQ " "

/* --- the pages --- */

/* Each page of those that are taken is one sequence's alone, and the others are free. */
static void check_pages(const struct pages *pages, int sequences) {
    int owners[8] = {0}, taken = 0;
    for (int i = 0; i < sequences; i++)
        for (int j = 0; j < pages_for(pages_reserved(pages, i)); j++, taken++) {
            int32_t page = pages_list(pages, i)[j];
            assert_in_range(page, 0, pages_count(pages) - 1);
            assert_int_equal(owners[page]++, 0);
        }
    assert_int_equal(pages_free(pages), pages_count(pages) - taken);
}

static void a_page_has_one_owner(void **state) {
    (void)state;
    static const struct {
        int sequence, positions, status; /* of 8 pages */
    } turns[] = {{0, 64, 0},  {1, 65, 0}, {2, 256, 0}, {0, 65, 0}, {1, 200, -1}, {1, 1, 0},
                 {2, 320, 0}, {0, 0, 0},  {1, 192, 0}, {0, 1, -1}, {2, 0, 0},    {0, 320, 0}};
    struct pages *pages;
    struct error error = {""};
    must(pages_create(8, 3, 320, &pages, &error), &error);
    assert_int_equal(pages_pitch(pages), 5);
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
        int sequence = turns[i].sequence, positions = turns[i].positions, status = turns[i].status;
        if (positions)
            assert_int_equal(pages_reserve(pages, sequence, positions, &error), status);
        else
            pages_release(pages, sequence);
        assert_int_equal(pages_reserved(pages, sequence), status ? 0 : positions);
        check_pages(pages, 3);
    }
    assert_non_null(strstr(error.text, "needs 1 pages"));
    assert_non_null(strstr(error.text, "0 of 8 are free"));
    pages_destroy(pages);
}

/* As many as the largest needs of so many at once; a request's last token takes no room. */
static void pages_are_those_of_the_longest(void **state) {
    (void)state;
    struct request list[] = {{.prompt_count = 64, .max_tokens = 1},      {.prompt_count = 64, .max_tokens = 2},
                             {.prompt_count = 1, .max_tokens = 1 << 30}, {.prompt_count = 500, .stop = "error"},
                             {.prompt_count = 1, .max_tokens = 0},       {.prompt_count = 300, .max_tokens = 1}};
    const struct requests requests = {.list = list, .count = 6};
    static const int most[] = {4, 6, 7, 7, 7};
    struct error error;
    int least;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(batch_pages(&requests, 256, i + 1, &least, &error), most[i]);
        assert_int_equal(least, 4);
    }
}

/* --- the library --- */

static void pages_go_from_hand_to_hand(void **state) {
    (void)state;
    golden_check_sharing("cpu", "tiny-qwen2", METHOD_NONE);
    golden_check_sharing("cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
}

static void joining_and_leaving_changes_no_token(void **state) {
    (void)state;
    golden_check_batches("cpu", "tiny-qwen2", METHOD_NONE);
    golden_check_batches("cpu", "tiny-qwen2-awq", METHOD_AWQ);
    golden_check_batches("cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
    golden_check_batches("cpu", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ_MARLIN);
}

/* A run that is cut, or fails, once so many have ended. */
struct cut {
    int ended, at;
    bool fails;
    volatile sig_atomic_t interrupted;
};

static int cut_ended(void *context, struct error *error) {
    struct cut *cut = context;
    if (++cut->ended < cut->at) return 0;
    cut->interrupted = 1;
    return cut->fails ? error_set(error, "no more") : 0;
}

/* Ten requests, three at once. */
static int run_cut(struct subject *s, const json_t *entries, struct cut *cut, struct requests *requests,
                   struct batch_figures *figures, struct error *error) {
    const struct batch_options options = {.sampling = {.top_p = 1, .repetition_penalty = 1},
                                          .context = GOLDEN_IDS,
                                          .sequences = 3,
                                          .interrupted = &cut->interrupted};
    *requests = golden_requests(entries, 2);
    return batch_run(s->model, &s->config, &options, requests, cut_ended, cut, figures, error);
}

static void a_cut_run_keeps_what_it_has(void **state) {
    (void)state;
    struct subject subject;
    struct error error = {""};
    struct requests requests;
    struct batch_figures figures;
    json_t *root, *entries = golden_entries("tiny-qwen2", &root);
    subject_open(&subject, "cpu", "tiny-qwen2", METHOD_NONE, 512, NULL);
    for (int at = 1; at <= 4; at++) {
        struct cut cut = {.at = at};
        int tokens = 0, count[2] = {0};
        must(run_cut(&subject, entries, &cut, &requests, &figures, &error), &error);
        for (int i = 0; i < requests.count; i++) {
            const struct request *r = &requests.list[i];
            bool cancelled = r->stop && !strcmp(r->stop, "cancelled");
            golden_check_reply(r, i, entries);
            count[0] += cancelled;
            count[1] += !r->stop;
            tokens += r->count;
            assert_true(r->stop || !r->count);
            assert_true(!r->stop || cancelled || r->count == r->max_tokens);
        }
        assert_int_equal(figures.cancelled, count[0]);
        assert_int_equal(figures.waiting, count[1]);
        assert_int_equal(figures.done, requests.count - count[0] - count[1]);
        assert_true(count[0] > 0 && count[1] > 0 && figures.done >= at);
        assert_int_equal(figures.tokens, tokens);
        requests_free(&requests);
    }
    struct cut early = {.interrupted = 1};
    must(run_cut(&subject, entries, &early, &requests, &figures, &error), &error);
    assert_int_equal(figures.waiting, requests.count);
    assert_int_equal(figures.tokens, 0);
    requests_free(&requests);
    struct cut failing = {.at = 2, .fails = true};
    assert_int_equal(run_cut(&subject, entries, &failing, &requests, &figures, &error), -1);
    assert_string_equal(error.text, "no more");
    requests_free(&requests);
    subject_close(&subject);
    json_decref(root);
}

/* Those that would never fit end; what a sequence held before is given back. */
static void what_no_cache_holds_fails(void **state) {
    (void)state;
    struct subject subject;
    struct error error = {""};
    struct requests requests;
    struct batch_figures figures;
    struct cut cut = {.at = 100};
    int least, failed = 0, id = 1;
    json_t *root, *entries = golden_entries("tiny-qwen2", &root);
    requests = golden_requests(entries, 2);
    batch_pages(&requests, GOLDEN_IDS, 3, &least, &error);
    requests_free(&requests);
    subject_open_pages(&subject, "cpu", "tiny-qwen2", METHOD_NONE, 512, NULL, least - 1);
    assert_int_equal(model_forward(subject.model, 0, &id, 1, 0, NULL, &error), -1); /* it would take the context */
    assert_non_null(strstr(error.text, "are free"));
    must(model_reserve(subject.model, 2, 64 * (least - 1), &error), &error);
    must(run_cut(&subject, entries, &cut, &requests, &figures, &error), &error);
    for (int i = 0; i < requests.count; i++) {
        const struct request *r = &requests.list[i];
        golden_check_reply(r, i, entries);
        failed += !!r->why;
        assert_true(r->why ? !r->count && !!strstr(r->why, "pages of KV cache") : r->count == r->max_tokens);
    }
    assert_true(failed > 0 && failed < requests.count);
    assert_int_equal(figures.failed, failed);
    assert_int_equal(cut.ended, requests.count);
    requests_free(&requests);
    subject_close(&subject);
    json_decref(root);
}

static void logits_that_are_not_finite_fail_their_request(void **state) {
    (void)state;
    struct subject subject;
    struct error error = {""};
    struct requests requests;
    struct batch_figures figures;
    struct cut cut = {.at = 100};
    json_t *root, *entries = golden_entries("tiny-qwen2", &root);
    subject_open(&subject, "cpu", "tiny-qwen2", METHOD_NONE, 512, NULL);
    model_destroy(subject.model);
    subject.config.rms_eps = NAN;
    subject_create(&subject, METHOD_NONE, 512, NULL, 0);
    must(run_cut(&subject, entries, &cut, &requests, &figures, &error), &error);
    assert_int_equal(figures.failed, requests.count);
    assert_int_equal(cut.ended, requests.count);
    assert_non_null(strstr(requests.list[9].why, "not finite"));
    requests_free(&requests);
    subject_close(&subject);
    json_decref(root);
}

/* --- the command --- */

static void write_file(const char *name, const char *text, size_t bytes) {
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void write_text(const char *name, const char *text) {
    write_file(name, text, strlen(text));
}

/* The objects that a line printed to stdout, one a line; the exit code is `code`. */
static json_t *replies(int code, const char *line) {
    char command[1024], *rest = output;
    json_t *list = json_array();
    snprintf(command, sizeof command, "{ %s\n} 2>@/words", line);
    int found = shell(command);
    if (found != code) fail_msg("%s: exit code %d, not %d: %s", line, found, code, output);
    for (char *text; (text = strsep(&rest, "\n")) && *text;) {
        json_t *object = json_loads(text, JSON_ALLOW_NUL, NULL);
        if (!object) fail_msg("%s: not JSON: %s", line, text);
        json_array_append_new(list, object);
    }
    return list;
}

static json_t *field(const json_t *list, int index, const char *name) {
    return json_object_get(json_array_get(list, (size_t)index), name);
}

static const char *text_field(const json_t *list, int index, const char *name) {
    const char *text = json_string_value(field(list, index, name));
    if (!text) fail_msg("object %d has no %s", index, name);
    return text;
}

static const char *const prompts[] = {"Four score and", "x", "Let me not to the marriage of true minds",
                                      "When in the Course", "We"};
enum { PROMPTS = sizeof prompts / sizeof *prompts };

/* Each line, whatever runs beside it, has the ids, text and end of a run of its own. */
static void check_alone(const char *options) {
    static const int batches[] = {1, 2, 16};
    char line[512];
    json_t *lists[3], *alone[PROMPTS];
    write_text("prompts", "Four score and\nx\nLet me not to the marriage of true minds\n\nWhen in the Course\r\nWe");
    for (int i = 0; i < PROMPTS; i++) {
        snprintf(line, sizeof line, DECODE "%s -n 24 --json --prompt '%s'", options, prompts[i]);
        alone[i] = replies(0, line);
    }
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof line, DECODE "%s -n 24 --prompts @/prompts --batch %d", options, batches[i]);
        lists[i] = replies(0, line);
        assert_int_equal(json_array_size(lists[i]), PROMPTS);
        for (int p = 0; p < PROMPTS; p++) {
            assert_int_equal(json_integer_value(field(lists[i], p, "line")), p < 3 ? p + 1 : p + 2);
            assert_true(json_equal(field(lists[i], p, "ids"), field(alone[p], 0, "ids")));
            assert_true(json_equal(field(lists[i], p, "text"), field(alone[p], 0, "text")));
            assert_true(json_equal(field(lists[i], p, "stop"), field(alone[p], 0, "stop")));
            assert_true(json_number_value(field(lists[i], p, "ttft_ms")) > 0);
        }
        json_decref(lists[i]);
    }
    for (int i = 0; i < PROMPTS; i++) json_decref(alone[i]);
}

static void lines_are_as_alone(void **state) {
    (void)state;
    check_alone("");
    check_alone("--chat");
    check_alone("--ignore-eos --ctx 40");
}

/* Later options win: these take the place of DECODE's. */
static void sampled_lines_are_as_alone(void **state) {
    (void)state;
    check_alone("--temperature 0.8 --top-k 20 --seed 3 --repetition-penalty 1.1");
}

/* A page of the fixture is 64 KiB; each of these prompts needs two. */
static void prompts_wait_for_room(void **state) {
    (void)state;
    static const struct {
        const char *memory;
        int pages, held;
    } runs[] = {{"", 10, 0}, {"--kv-memory 0.00035", 5, 2}, {"--kv-memory 0.00013", 2, 4}};
    json_t *lists[3];
    char line[256];
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof line, DECODE "--prompts @/prompts --ignore-eos -n 100 --json %s", runs[i].memory);
        lists[i] = replies(0, line);
        assert_int_equal(json_integer_value(json_object_get(field(lists[i], PROMPTS, "memory"), "kv_bytes")),
                         runs[i].pages << 16);
        assert_int_equal(json_integer_value(field(lists[i], PROMPTS, "held")), runs[i].held);
        for (int p = 0; p < PROMPTS; p++) assert_true(json_equal(field(lists[i], p, "ids"), field(lists[0], p, "ids")));
    }
    for (int i = 0; i < 3; i++) json_decref(lists[i]);
    expect_shell(0, DECODE "--prompts @/prompts -n 100 --ignore-eos --kv-memory 0.00013", "4 prompts waited for room");
    expect_shell(1, DECODE "--prompts @/prompts -n 100 --kv-memory 0.0001",
                 "the longest sequence needs|are allowed by --kv-memory|a smaller --ctx or --max-tokens");
}

static void an_end_of_text_gives_the_place_away(void **state) {
    (void)state;
    write_text("prompts", "Recite sonnet 18.\nRecite the Gettysburg Address.\nRecite sonnet 18.\n");
    json_t *list = replies(0, "$TILEBOOK decode --device cpu --temperature 0 --model " PLAIN
                              " --chat --prompts @/prompts --batch 2 -n 400 --json");
    assert_string_equal(text_field(list, 0, "stop"), "eos");
    assert_true(json_equal(field(list, 0, "ids"), field(list, 2, "ids")));
    json_int_t tokens = 0, counted = json_integer_value(field(list, 3, "tokens"));
    for (int i = 0; i < 3; i++) tokens += (json_int_t)json_array_size(field(list, i, "ids"));
    assert_int_equal(tokens, counted);
    assert_int_equal(json_integer_value(field(list, 3, "done")), 3);
    assert_int_equal(json_integer_value(field(list, 3, "batch")), 2);
    double mean = json_number_value(field(list, 3, "mean_batch"));
    assert_true(mean > 1 && mean <= 2);
    assert_true(json_number_value(field(list, 3, "ttft_ms_p99")) >= json_number_value(field(list, 3, "ttft_ms_p50")));
    json_decref(list);
}

static void objects_have_ids_and_lengths_of_their_own(void **state) {
    (void)state;
    write_text("p.jsonl", "{\"prompt\":\"Four score\",\"max_tokens\":3}\n{\"prompt_ids\":[5]}\n"
                          "{\"prompt\":\"z\",\"max_tokens\":0}\n");
    json_t *list = replies(0, DECODE "--prompts @/p.jsonl -n 7");
    static const size_t counts[] = {3, 7, 0};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(json_array_size(field(list, i, "ids")), counts[i]);
        assert_string_equal(text_field(list, i, "stop"), "length");
    }
    json_decref(list);
}

/* Words on both streams, by line; and what can run does. */
static void lines_that_cannot_run_say_why(void **state) {
    (void)state;
    static const char *const whys[] = {"accepted: ids from 0 to 1151",
                                       "accepted: a string",
                                       "not a JSON object",
                                       "accepted: prompt, prompt_ids",
                                       "premature end",
                                       "both prompt and",
                                       "the prompt is empty",
                                       "found nothing",
                                       "0xff",
                                       "6 tokens, more than --ctx 5",
                                       "u0000",
                                       "duplicate"};
    static const char bad[] =
        "{\"prompt_ids\":[1,1152]}\n{\"prompt\":3}\n[]\n{\"prompt\":\"a\",\"x\":1}\n{\"prompt\":"
        "\"a\n{\"prompt\":\"b\",\"prompt_ids\":[1]}\n{\"prompt\":\"\"}\n{}\n{\"prompt\":\"\xff\"}\n"
        "{\"prompt_ids\":[1,2,3,4,5,6]}\n{\"prompt\":\"\\u0000\"}\n{\"prompt\":\"\",\"prompt\":\"\"}\n"
        "{\"prompt_ids\":[7]}";
    write_text("bad.jsonl", bad);
    json_t *list = replies(1, DECODE "--prompts @/bad.jsonl --ctx 5 -n 9");
    for (int i = 0; i < 12; i++) {
        const char *why = text_field(list, i, "error");
        if (!strstr(why, whys[i])) fail_msg("line %d: no '%s' in '%s'", i + 1, whys[i], why);
        assert_int_equal(json_integer_value(field(list, i, "line")), i + 1);
    }
    assert_string_equal(text_field(list, 12, "stop"), "context");
    assert_int_equal(json_array_size(field(list, 12, "ids")), 5);
    json_decref(list);
    expect_shell(0, "cat @/words",
                 "bad.jsonl, line 10: the prompt has 6 tokens|needs --ctx 15|12 of 13 prompts failed");
    write_text("long", "one two three four five six seven eight nine ten eleven twelve\nx\n");
    expect_shell(1, DECODE "--prompts @/long --ctx 9 -n 2",
                 "line 1: the prompt has|needs --ctx|\"line\":2,\"prompt_tokens\":1");
    write_text("none", "one two three four five six seven eight nine ten eleven twelve");
    expect_shell(1, DECODE "--prompts @/none --ctx 2 -n 2", "line 1: the prompt has|no prompt can run");
    expect_shell(1, DECODE "--chat --prompts @/bad.jsonl", "--chat needs a text");
}

static void hostile_files(void **state) {
    (void)state;
    enum { HUGE_LINE = 1 << 20 };
    char *huge = malloc(HUGE_LINE + 3);
    memset(huge, 'a', HUGE_LINE);
    for (int i = 0; i < HUGE_LINE; i += 6) huge[i] = ' ';
    memcpy(huge + HUGE_LINE, "\nx", 3);
    write_file("huge", huge, HUGE_LINE + 2);
    free(huge);
    json_t *list = replies(1, DECODE "--prompts @/huge -n 2");
    assert_non_null(strstr(text_field(list, 0, "error"), "at most 512"));
    assert_int_equal(json_array_size(field(list, 1, "ids")), 2);
    json_decref(list);
    write_file("zeros", "a\0b\n\0\n\xff\xfe\nx", 10);
    write_file("zero", "a\0b", 3);
    list = replies(1, DECODE "--prompts @/zeros -n 5");
    json_t *alone = replies(0, DECODE "--prompt-file @/zero -n 5 --json");
    assert_true(json_equal(field(list, 0, "ids"), field(alone, 0, "ids")));
    assert_string_equal(text_field(list, 1, "stop"), "length");
    assert_non_null(strstr(text_field(list, 2, "error"), "UTF-8"));
    assert_string_equal(text_field(list, 3, "stop"), "length");
    json_decref(list);
    json_decref(alone);
    write_text("empty", "");
    write_text("lines", "\n\n\r\n\n");
    expect_shell(1, DECODE "--prompts @/empty", "empty has no prompts");
    expect_shell(1, DECODE "--prompts @/lines", "lines has no prompts");
    expect_shell(1, DECODE "--prompts @/missing", "missing: No such file");
    expect_shell(1, DECODE "--prompts @", "Is a directory");
    expect_shell(0, "printf 'x\\ny' | " DECODE "--prompts - -n 2", "\"line\":1|\"line\":2");
    expect_shell(1, DECODE "--prompts @/prompts --ctx 4096", "--ctx 4096: this model takes at most 512");
    expect_shell(1, "printf 'x\\ny' | " DECODE "--prompts - -n 2 >/dev/full", "could not be written");
}

static void wrong_usage(void **state) {
    (void)state;
    expect(2, "decode --model " AWQ " --prompts f --prompt x", "more than one prompt");
    expect(2, "decode --model " AWQ " --prompts f --bench", "--bench takes no prompt");
    expect(2, "decode --model " AWQ " --prompts f --batch 2,3", "lists");
    expect(2, "decode --model " AWQ " --prompts f --kv-memory many", "--kv-memory many");
    expect(2, "decode --model " AWQ " --prompt x --kv-memory 1", "--kv-memory is for --prompts");
    expect(2, "decode --model " AWQ " --prompts f --logits x", "--logits does not go with --prompts");
}

/* Ctrl-C once the first reply is there: whole lines, what was cut, and exit code 130. The first is short, so that never
 * all sequences end with the same step. */
static void an_interrupt_ends_with_what_is_done(void **state) {
    (void)state;
    json_t *list = replies(130, "for i in $(seq 4000); do "
                                "echo '{\"prompt\": \"Four score\", \"max_tokens\": '$((i == 1 ? 20 : 400))'}'; "
                                "done >@/many.jsonl; " DECODE "--ignore-eos --prompts @/many.jsonl --batch 3 >@/out & "
                                "until [ -s @/out ]; do sleep 0.05; done; kill -INT $!; wait $!; code=$?; "
                                "tail -n 4 @/out; exit $code");
    int count = (int)json_array_size(list);
    assert_string_equal(text_field(list, count - 1, "stop"), "cancelled");
    json_decref(list);
    expect_shell(0, "cat @/words", "interrupted; |have not begun|prompts  ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_has_one_owner),
        cmocka_unit_test(pages_are_those_of_the_longest),
        cmocka_unit_test(joining_and_leaving_changes_no_token),
        cmocka_unit_test(pages_go_from_hand_to_hand),
        cmocka_unit_test(a_cut_run_keeps_what_it_has),
        cmocka_unit_test(what_no_cache_holds_fails),
        cmocka_unit_test(logits_that_are_not_finite_fail_their_request),
        cmocka_unit_test(lines_are_as_alone),
        cmocka_unit_test(sampled_lines_are_as_alone),
        cmocka_unit_test(prompts_wait_for_room),
        cmocka_unit_test(an_end_of_text_gives_the_place_away),
        cmocka_unit_test(objects_have_ids_and_lengths_of_their_own),
        cmocka_unit_test(lines_that_cannot_run_say_why),
        cmocka_unit_test(hostile_files),
        cmocka_unit_test(wrong_usage),
        cmocka_unit_test(an_interrupt_ends_with_what_is_done),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
