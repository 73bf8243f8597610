/* Byte-level BPE: on a tokenizer small enough to follow by hand, on the tiny model's, and on Qwen2.5's own
 * (QWEN_TOKENIZER names its folder; skipped without it). */
#include "tests/model_dir.h"

#include <jansson.h>

#include "bench/decoder/tokenizer.h"

static char directory[64];
static struct tokenizer *tokenizer;
static struct error error;

#define SPLIT                                                                                                          \
    "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": "                     \
    "\"\\\\p{L}+| ?[^\\\\s\\\\p{L}]+|\\\\s+(?!\\\\S)|\\\\s+\"}, \"behavior\": \"Isolated\", \"invert\": false}, "      \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]}"
#define BYTES "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}"
#define MERGES "[\"a b\", \"b c\", \"ab c\", \"c c\"]"
#define ADDED                                                                                                          \
    "[{\"id\": 300, \"content\": \"<x>\", \"special\": true}, {\"id\": 301, \"content\": \"<x>y\"}, "                  \
    "{\"id\": 302, \"content\": \"\\u00e9!\", \"normalized\": true}]"

static int setup(void **state) {
    (void)state;
    tokenizer = NULL;
    model_dir_make(directory);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tokenizer_close(tokenizer);
    model_dir_remove(directory);
    return 0;
}

/* All 256 bytes (id = byte), ab 256, bc 257, abc 258, cc 259. */
static json_t *make_vocab(void) {
    json_t *vocab = json_object();
    for (int byte = 0; byte < 256; byte++) {
        bool printable = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
        int other = byte < 33 ? 256 + byte : byte < 161 ? 256 + 33 + byte - 127 : 256 + 67;
        int character = printable ? byte : other;
        char text[3] = {(char)character};
        if (character > 127) {
            text[0] = (char)(0xc0 | character >> 6);
            text[1] = (char)(0x80 | (character & 63));
        }
        json_object_set_new(vocab, text, json_integer(byte));
    }
    static const char *const merged[] = {"ab", "bc", "abc", "cc"};
    for (int i = 0; i < 4; i++) json_object_set_new(vocab, merged[i], json_integer(256 + i));
    return vocab;
}

/* A tokenizer.json of these parts, each JSON text; NULL leaves a part out. */
static int open_parts(const char *normalizer, const char *pre, const char *merges, const char *added,
                      const char *extra) {
    json_t *root = json_object(), *model = json_object();
    json_object_set_new(model, "type", json_string("BPE"));
    json_object_set_new(model, "vocab", make_vocab());
    if (merges) json_object_set_new(model, "merges", json_loads(merges, 0, NULL));
    json_object_set_new(root, "model", model);
    if (normalizer) json_object_set_new(root, "normalizer", json_loads(normalizer, JSON_DECODE_ANY, NULL));
    if (pre) json_object_set_new(root, "pre_tokenizer", json_loads(pre, JSON_DECODE_ANY, NULL));
    if (added) json_object_set_new(root, "added_tokens", json_loads(added, JSON_DECODE_ANY, NULL));
    json_t *more = extra ? json_loads(extra, 0, NULL) : NULL;
    json_object_update(model, json_object_get(more, "model"));
    json_object_del(more, "model");
    json_object_update(root, more);
    json_decref(more);
    char *text = json_dumps(root, 0);
    json_decref(root);
    model_dir_text(directory, "tokenizer.json", text);
    free(text);
    tokenizer_close(tokenizer);
    error.text[0] = 0;
    return tokenizer_open(directory, &tokenizer, &error);
}

static void encodes_bytes(const char *text, size_t bytes, const int *expected, int expected_count) {
    int *ids, count;
    if (tokenizer_encode(tokenizer, text, bytes, &ids, &count, &error)) fail_msg("'%s': %s", text, error.text);
    for (int i = 0; i < count && i < expected_count; i++)
        if (ids[i] != expected[i]) fail_msg("'%s': id %d is %d, not %d", text, i, ids[i], expected[i]);
    if (count != expected_count) fail_msg("'%s': %d ids, not %d", text, count, expected_count);
    free(ids);
}

#define ENCODES(text, ...)                                                                                             \
    encodes_bytes(text, sizeof text - 1, (const int[]){__VA_ARGS__},                                                   \
                  (int)(sizeof(const int[]){__VA_ARGS__} / sizeof(int)))

static void merges_by_rank(void **state) {
    (void)state;
    if (open_parts(NULL, SPLIT, MERGES, NULL, NULL)) fail_msg("%s", error.text);
    assert_int_equal(tokenizer_size(tokenizer), 260);
    ENCODES("abc", 258);
    ENCODES("bcc", 257, 'c');
    ENCODES("ccc", 259, 'c');
    ENCODES("ab cab", 256, ' ', 'c', 256);
    ENCODES("aabcc", 'a', 258, 'c');
    ENCODES("a\0b", 'a', 0, 'b');
    encodes_bytes("", 0, NULL, 0);
    if (open_parts(NULL, SPLIT, "[[\"b\", \"c\"], [\"a\", \"b\"]]", NULL, NULL)) fail_msg("%s", error.text);
    ENCODES("abc", 'a', 257);
}

static void splits_by_the_pattern(void **state) {
    (void)state;
    if (open_parts(NULL, SPLIT, "[\"c c\"]", NULL, NULL)) fail_msg("%s", error.text);
    ENCODES("c1c", 'c', '1', 'c');
    ENCODES("cc1cc", 259, '1', 259);
    /* U+180E is no White_Space, so it stays with what it touches. */
    ENCODES("\xe1\xa0\x8e", 0xe1, 0xa0, 0x8e);
    if (open_parts(NULL, BYTES, "[\"c c\"]", NULL, NULL)) fail_msg("%s", error.text);
    ENCODES("cc's", 259, '\'', 's');
    const char *literal =
        "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"String\": "
        "\"c.\"}, \"behavior\": \"Isolated\"}, " BYTES "]}";
    if (open_parts(NULL, literal, "[\"c c\"]", NULL, NULL)) fail_msg("%s", error.text);
    ENCODES("ccc.", 259, 'c', '.');
}

static void normalises(void **state) {
    (void)state;
    if (open_parts("{\"type\": \"NFC\"}", SPLIT, MERGES, ADDED, NULL)) fail_msg("%s", error.text);
    ENCODES("e\xcc\x81", 0xc3, 0xa9);
    ENCODES("e\xcc\x81!", 302);
    ENCODES("a\xcc\x81\xcc\xa7", 0xc3, 0xa1, 0xcc, 0xa7);
    if (open_parts("null", SPLIT, MERGES, ADDED, NULL)) fail_msg("%s", error.text);
    ENCODES("e\xcc\x81", 'e', 0xcc, 0x81);
    ENCODES("\xc3\xa9!", 302);
}

static void finds_added_tokens(void **state) {
    (void)state;
    size_t bytes;
    if (open_parts(NULL, SPLIT, MERGES, ADDED, NULL)) fail_msg("%s", error.text);
    assert_int_equal(tokenizer_size(tokenizer), 303);
    ENCODES("abc<x>abc", 258, 300, 258);
    ENCODES("<x>y<x>", 301, 300);
    ENCODES("<x", '<', 'x');
    assert_true(tokenizer_special(tokenizer, 300));
    assert_false(tokenizer_special(tokenizer, 301) || tokenizer_special(tokenizer, -1) ||
                 tokenizer_special(tokenizer, 999));
    assert_string_equal(tokenizer_token(tokenizer, 301, &bytes), "<x>y");
    assert_int_equal(bytes, 4);
    assert_null(tokenizer_token(tokenizer, 299, &bytes));
    assert_null(tokenizer_token(tokenizer, 303, &bytes));
    assert_null(tokenizer_token(tokenizer, -1, &bytes));
    assert_memory_equal(tokenizer_token(tokenizer, 0xc3, &bytes), "\xc3", 1);
    assert_int_equal(bytes, 1);
    assert_non_null(tokenizer_token(tokenizer, 0, &bytes));
    assert_int_equal(bytes, 1);
}

static void takes_whole_words(void **state) {
    (void)state;
    if (open_parts(NULL, SPLIT, "[]", NULL, "{\"model\": {\"ignore_merges\": true}}")) fail_msg("%s", error.text);
    ENCODES("abc", 258);
    ENCODES("abcb", 'a', 'b', 'c', 'b');
}

static void refuses_invalid_utf8(void **state) {
    (void)state;
    int *ids, count;
    static const char *const bad[] = {"ab\xff", "ab\xc3", "ab\xc0\x80", "ab\xed\xa0\x80", "ab\xf5\x80\x80\x80"};
    if (open_parts(NULL, SPLIT, MERGES, NULL, NULL)) fail_msg("%s", error.text);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(tokenizer_encode(tokenizer, bad[i], strlen(bad[i]), &ids, &count, &error), -1);
        assert_says(error.text, "UTF-8|byte 2");
    }
}

static void refuses_other_tokenizers(void **state) {
    (void)state;
    const struct {
        const char *normalizer, *pre, *merges, *added, *extra, *says;
    } cases[] = {
        {"{\"type\": \"NFKC\"}", SPLIT, MERGES, NULL, NULL, "normalizer|NFKC|NFC"},
        {NULL, NULL, MERGES, NULL, NULL, "pre_tokenizer|found nothing|ByteLevel"},
        {NULL, "{\"type\": \"Metaspace\"}", MERGES, NULL, NULL, "pre_tokenizer|Metaspace|ByteLevel"},
        {NULL, "{\"type\": \"Sequence\", \"pretokenizers\": []}", MERGES, NULL, NULL, "pre_tokenizer|ByteLevel"},
        {NULL, "{\"type\": \"Sequence\", \"pretokenizers\": [7]}", MERGES, NULL, NULL, "pre_tokenizer|found 7"},
        {NULL, "{\"type\": \"ByteLevel\"}", MERGES, NULL, NULL, "add_prefix_space|true"},
        {NULL, "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, \"behavior\": \"Isolated\"}", MERGES, NULL, NULL,
         "pre_tokenizer|'('"},
        {NULL, "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": \"Removed\"}", MERGES, NULL, NULL,
         "behavior|Removed|Isolated"},
        {NULL, "{\"type\": \"Split\", \"behavior\": \"Isolated\"}", MERGES, NULL, NULL, "pattern|Regex"},
        {NULL, SPLIT, NULL, NULL, NULL, "model.merges|found nothing"},
        {NULL, SPLIT, "[\"ab\"]", NULL, NULL, "model.merges|ab|merge 0"},
        {NULL, SPLIT, "[\"a b\", \"c a\"]", NULL, NULL, "model.merges|c a|merge 1"},
        {NULL, SPLIT, "[[\"a\"]]", NULL, NULL, "model.merges"},
        {NULL, SPLIT, "[5]", NULL, NULL, "model.merges|found 5"},
        {NULL, SPLIT, MERGES, "[{\"id\": -4, \"content\": \"x\"}]", NULL, "added_tokens.id|-4"},
        {NULL, SPLIT, MERGES, "[{\"id\": 2000000000, \"content\": \"x\"}]", NULL, "added_tokens.id|2000000000"},
        {NULL, SPLIT, MERGES, "[{\"id\": 400}]", NULL, "added_tokens|content"},
        {NULL, SPLIT, MERGES, "[{\"id\": 400, \"content\": \"\"}]", NULL, "added_tokens.content"},
        {NULL, SPLIT, MERGES, "[{\"id\": 400, \"content\": \"x\", \"lstrip\": true}]", NULL, "lstrip"},
        {NULL, SPLIT, MERGES, "5", NULL, "added_tokens|found 5"},
        {NULL, SPLIT, MERGES, NULL, "{\"model\": {\"type\": \"Unigram\"}}", "model.type|Unigram|BPE"},
        {NULL, SPLIT, MERGES, NULL, "{\"model\": {\"vocab\": {\"a\": 1, \"b\": 1}}}", "model.vocab|each id once"},
        {NULL, SPLIT, MERGES, NULL, "{\"model\": {\"vocab\": {\"a\": \"1\"}}}", "model.vocab"},
        {NULL, SPLIT, MERGES, NULL, "{\"model\": {\"vocab\": 1}}", "model.vocab"},
        {NULL, SPLIT, MERGES, NULL, "{\"model\": {\"dropout\": 0.5}}", "dropout"},
        {NULL, SPLIT, MERGES, NULL, "{\"model\": {\"end_of_word_suffix\": \"</w>\"}}", "end_of_word_suffix"},
        {NULL, SPLIT, MERGES, NULL, "{\"post_processor\": {\"type\": \"TemplateProcessing\"}}", "post_processor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!open_parts(cases[i].normalizer, cases[i].pre, cases[i].merges, cases[i].added, cases[i].extra))
            fail_msg("accepted; it should say: %s", cases[i].says);
        assert_says(error.text, "tokenizer.json");
        assert_says(error.text, cases[i].says);
    }
    model_dir_text(directory, "tokenizer.json", "{}");
    assert_int_equal(tokenizer_open(directory, &tokenizer, &error), -1);
    model_dir_delete(directory, "tokenizer.json");
    assert_int_equal(tokenizer_open(directory, &tokenizer, &error), -1);
    assert_says(error.text, "tokenizer.json|No such file");
}

static void names_a_byte_without_token(void **state) {
    (void)state;
    int *ids, count;
    if (open_parts(NULL, SPLIT, "[]", NULL, "{\"model\": {\"vocab\": {\"a\": 0}}}")) fail_msg("%s", error.text);
    assert_int_equal(tokenizer_encode(tokenizer, "ab", 2, &ids, &count, &error), -1);
    assert_says(error.text, "no token for the byte 0x62");
}

static void encodes_long_texts(void **state) {
    (void)state;
    enum { LENGTH = 1 << 20 };
    char *text = malloc(LENGTH);
    int *ids, count;
    if (open_parts(NULL, SPLIT, MERGES, NULL, NULL)) fail_msg("%s", error.text);
    memset(text, 'c', LENGTH);
    assert_int_equal(tokenizer_encode(tokenizer, text, LENGTH, &ids, &count, &error), 0);
    assert_int_equal(count, LENGTH / 2);
    free(ids);
    memset(text, ' ', LENGTH);
    assert_int_equal(tokenizer_encode(tokenizer, text, LENGTH, &ids, &count, &error), 0);
    assert_int_equal(count, LENGTH);
    free(ids);
    /* One run of combining marks, each pair of them in the wrong order. */
    if (open_parts("{\"type\": \"NFC\"}", SPLIT, MERGES, NULL, NULL)) fail_msg("%s", error.text);
    for (int i = 0; i < LENGTH; i += 4) memcpy(text + i, "\xcc\x81\xcc\xa7", 4);
    assert_int_equal(tokenizer_encode(tokenizer, text, LENGTH, &ids, &count, &error), 0);
    assert_int_equal(count, LENGTH);
    assert_int_equal(ids[1], 0xa7);
    assert_int_equal(ids[LENGTH - 1], 0x81);
    free(ids);
    free(text);
}

/* --- golden ids --- */

static void check_golden(const char *line, int number) {
    json_t *entry = json_loads(line, JSON_ALLOW_NUL, NULL);
    const json_t *text = json_object_get(entry, "text"), *expected = json_object_get(entry, "ids");
    const json_t *decoded = json_object_get(entry, "decoded");
    int *ids, count;
    assert_true(json_is_string(text) && json_is_array(expected) && json_is_string(decoded));
    if (tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), &ids, &count, &error))
        fail_msg("line %d: %s", number, error.text);
    if ((size_t)count != json_array_size(expected))
        fail_msg("line %d: %d ids, not %zu", number, count, json_array_size(expected));
    char *all = calloc(1, json_string_length(decoded) + 1);
    size_t used = 0, room = json_string_length(decoded);
    for (int i = 0; i < count; i++) {
        int id = (int)json_integer_value(json_array_get(expected, (size_t)i));
        if (ids[i] != id) fail_msg("line %d: id %d is %d, not %d", number, i, ids[i], id);
        size_t bytes;
        const char *token = tokenizer_token(tokenizer, id, &bytes);
        assert_non_null(token);
        if (used + bytes > room) fail_msg("line %d: the decoded text is too long", number);
        memcpy(all + used, token, bytes);
        used += bytes;
    }
    assert_int_equal(used, room);
    assert_memory_equal(all, json_string_value(decoded), room);
    free(all);
    free(ids);
    json_decref(entry);
}

static void check_golden_file(const char *folder, const char *path) {
    char *line = NULL;
    size_t room = 0;
    int number = 0;
    if (tokenizer_open(folder, &tokenizer, &error)) fail_msg("%s", error.text);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (getline(&line, &room, file) > 0) check_golden(line, ++number);
    assert_true(number > 10);
    fclose(file);
    free(line);
}

static void matches_the_tiny_model(void **state) {
    (void)state;
    check_golden_file("tests/fixtures/tiny-qwen2", "tests/fixtures/tiny-qwen2-tokenizer.jsonl");
}

static void merges_have_two_spellings(void **state) {
    (void)state;
    check_golden_file("tests/fixtures/tiny-qwen2-awq", "tests/fixtures/tiny-qwen2-tokenizer.jsonl");
}

static void matches_qwen(void **state) {
    (void)state;
    const char *folder = getenv("QWEN_TOKENIZER");
    char path[PATH_MAX];
    if (!folder) {
        print_message("skip: QWEN_TOKENIZER does not name the folder of Qwen2.5's tokenizer.json and golden.jsonl\n");
        skip();
    }
    snprintf(path, sizeof path, "%s/golden.jsonl", folder);
    check_golden_file(folder, path);
    assert_int_equal(tokenizer_size(tokenizer), 151665);
    assert_true(tokenizer_special(tokenizer, 151645));
    assert_false(tokenizer_special(tokenizer, 151657));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(merges_by_rank),           TEST(splits_by_the_pattern),      TEST(normalises),
        TEST(finds_added_tokens),       TEST(takes_whole_words),          TEST(refuses_invalid_utf8),
        TEST(refuses_other_tokenizers), TEST(names_a_byte_without_token), TEST(encodes_long_texts),
        TEST(matches_the_tiny_model),   TEST(merges_have_two_spellings),  TEST(matches_qwen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
