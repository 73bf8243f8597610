/* safetensors files: what is mapped, and how truncated, lying and hostile ones are refused. */
#include "tests/model_dir.h"

#include "bench/decoder/checkpoint.h"

static char directory[64];
static struct error error;
static struct checkpoint *checkpoint;

static int setup(void **state) {
    (void)state;
    checkpoint = NULL;
    model_dir_make(directory);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    checkpoint_close(checkpoint);
    model_dir_remove(directory);
    return 0;
}

/* A file of this header and `data_bytes` bytes 0, 1, 2, ... */
static void write_shard(const char *name, const char *header, size_t data_bytes) {
    unsigned char bytes[4096] = {0};
    size_t length = strlen(header);
    assert_true(8 + length + data_bytes <= sizeof bytes);
    bytes[0] = (unsigned char)length;
    bytes[1] = (unsigned char)(length >> 8);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++) bytes[8 + length + i] = (unsigned char)i;
    model_dir_write(directory, name, bytes, 8 + length + data_bytes);
}

static int reopen(void) {
    checkpoint_close(checkpoint);
    error.text[0] = 0;
    return checkpoint_open(directory, &checkpoint, &error);
}

static void refused(const char *parts) {
    assert_int_equal(reopen(), -1);
    assert_null(checkpoint);
    assert_says(error.text, parts);
}

static void refused_header(const char *header, size_t data_bytes, const char *parts) {
    write_shard("model.safetensors", header, data_bytes);
    refused("model.safetensors");
    assert_says(error.text, parts);
}

#define A "\"a\": {\"dtype\": \"F16\", \"shape\": [2, 3], \"data_offsets\": [0, 12]}"
#define B "\"b\": {\"dtype\": \"I32\", \"shape\": [1], \"data_offsets\": [12, 16]}"

static void reads_one_file(void **state) {
    (void)state;
    write_shard("model.safetensors",
                "{\"__metadata__\": {\"format\": \"pt\"}, " B ", " A ", \"e\": {\"dtype\": \"F4\", "
                "\"shape\": [3], \"data_offsets\": [16, 18]}}   ",
                18);
    assert_int_equal(reopen(), 0);
    assert_int_equal(checkpoint_count(checkpoint), 3);
    assert_string_equal(checkpoint_at(checkpoint, 0)->name, "a");
    assert_string_equal(checkpoint_at(checkpoint, 2)->name, "e");
    assert_int_equal(checkpoint_at(checkpoint, 2)->dtype, DTYPE_OTHER);
    const struct tensor *a = checkpoint_get(checkpoint, "a", 1u << DTYPE_F16 | 1u << DTYPE_BF16, 2, 3, &error);
    assert_non_null(a);
    assert_string_equal(a->file, "model.safetensors");
    assert_int_equal(a->bytes, 12);
    assert_int_equal(((const unsigned char *)a->data)[11], 11);
    const struct tensor *b = checkpoint_get(checkpoint, "b", 1u << DTYPE_I32, 1, 0, &error);
    assert_non_null(b);
    assert_int_equal(((const unsigned char *)b->data)[0], 12);
    assert_null(checkpoint_find(checkpoint, "c"));
}

static void says_what_was_expected(void **state) {
    (void)state;
    write_shard("model.safetensors", "{" A ", " B "}", 16);
    assert_int_equal(reopen(), 0);
    assert_null(checkpoint_get(checkpoint, "a", 1u << DTYPE_F16, 3, 2, &error));
    assert_says(error.text, "model.safetensors|'a'|expected F16 [3, 2]|found F16 [2, 3]");
    assert_null(checkpoint_get(checkpoint, "a", 1u << DTYPE_F16, 2, 0, &error));
    assert_null(checkpoint_get(checkpoint, "b", 1u << DTYPE_F16 | 1u << DTYPE_BF16, 1, 0, &error));
    assert_says(error.text, "'b'|F16 or BF16 [1]|found I32 [1]");
    assert_null(checkpoint_get(checkpoint, "c", 1u << DTYPE_F32, 7, 0, &error));
    assert_says(error.text, "no tensor 'c'|F32 [7]");
}

static void refuses_a_broken_frame(void **state) {
    (void)state;
    refused("no weights|model.safetensors.index.json");
    model_dir_write(directory, "model.safetensors", "", 0);
    refused("model.safetensors|empty");
    model_dir_write(directory, "model.safetensors", "\5\0\0", 3);
    refused("model.safetensors");
    model_dir_write(directory, "model.safetensors", "\377\377\377\377\377\377\377\377{}", 10);
    refused("header says|truncated");
    model_dir_write(directory, "model.safetensors", "\3\0\0\0\0\0\0\0{}", 10);
    refused("header says that it is 3 bytes|truncated");
    refused_header("{\"a\": ", 0, "header");
    refused_header("[1, 2]", 0, "not a JSON object");
    refused_header("{}", 0, "no tensors");
    assert_int_equal(checkpoint_open("/nonexistent/model", &checkpoint, &error), -1);
    assert_says(error.text, "/nonexistent/model|no such directory");
}

static void refuses_every_truncation(void **state) {
    (void)state;
    static const char header[] = "{" A ", " B "}";
    unsigned char bytes[sizeof header + 24] = {sizeof header - 1};
    memcpy(bytes + 8, header, sizeof header - 1);
    for (size_t length = 0; length < sizeof header - 1 + 24; length++) {
        model_dir_write(directory, "model.safetensors", bytes, length);
        refused("model.safetensors");
    }
    model_dir_write(directory, "model.safetensors", bytes, sizeof header - 1 + 24);
    assert_int_equal(reopen(), 0);
}

static void refuses_lying_entries(void **state) {
    (void)state;
#define ENTRY(dtype, shape, offsets)                                                                                   \
    "{\"a\": {\"dtype\": " dtype ", \"shape\": " shape ", \"data_offsets\": " offsets "}}"
    refused_header("{" A ", " B "}", 15, "'b'|ends at byte 16 of 15|truncated");
    refused_header("{" A ", " B "}", 17, "1 bytes after the last tensor");
    refused_header(ENTRY("\"F16\"", "[2, 3]", "[0, 14]"), 14, "F16 [2, 3]|14 bytes");
    refused_header(ENTRY("\"F16\"", "[2, 3]", "[4, 2]"), 12, "data_offsets");
    refused_header(ENTRY("\"F16\"", "[2, 3]", "[-12, 0]"), 12, "data_offsets");
    refused_header(ENTRY("\"F16\"", "[2, 3]", "[0, 12, 24]"), 12, "data_offsets");
    refused_header(ENTRY("\"F16\"", "[2, 3]", "{}"), 12, "data_offsets");
    refused_header(ENTRY("\"F16\"", "[2, -3]", "[0, 12]"), 12, "shape");
    refused_header(ENTRY("\"F16\"", "[2, 1.5]", "[0, 6]"), 6, "shape");
    refused_header(ENTRY("\"F16\"", "6", "[0, 12]"), 12, "shape");
    refused_header(ENTRY("\"F16\"", "[1, 1, 1, 1, 6]", "[0, 12]"), 12, "shape");
    refused_header(ENTRY("\"F16\"", "[4294967296, 4294967296]", "[0, 12]"), 12, "shape");
    refused_header(ENTRY("\"F16\"", "[2305843009213693952, 4]", "[0, 0]"), 0, "a");
    refused_header(ENTRY("7", "[6]", "[0, 12]"), 12, "dtype");
    refused_header("{\"a\": 5}", 0, "dtype");
    refused_header("{" A ", " A "}", 12, "duplicate");
    refused_header("{" A ", \"b\": {\"dtype\": \"I32\", \"shape\": [1], \"data_offsets\": [8, 12]}}", 12, "overlaps");
    refused_header("{" A ", \"b\": {\"dtype\": \"I32\", \"shape\": [1], \"data_offsets\": [14, 18]}}", 18,
                   "2 bytes before");
}

static void reads_shards(void **state) {
    (void)state;
    model_dir_text(directory, "model.safetensors.index.json",
                   "{\"metadata\": {\"total_size\": 24}, \"weight_map\": {\"a\": \"one.safetensors\", \"b\": "
                   "\"one.safetensors\", \"c\": \"two.safetensors\"}}");
    write_shard("one.safetensors", "{" A ", " B "}", 16);
    refused("two.safetensors|missing|'c'");
    write_shard("two.safetensors", "{\"d\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}", 8);
    refused("index.json|'c'|two.safetensors|nowhere");
    write_shard("two.safetensors",
                "{\"c\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}, \"a\": {\"dtype\": "
                "\"F32\", \"shape\": [], \"data_offsets\": [8, 12]}}",
                12);
    refused("'a'|one.safetensors|two.safetensors|once");
    write_shard("two.safetensors", "{\"c\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}", 8);
    assert_int_equal(reopen(), 0);
    assert_int_equal(checkpoint_count(checkpoint), 3);
    assert_string_equal(checkpoint_find(checkpoint, "c")->file, "two.safetensors");
}

static void refuses_a_bad_index(void **state) {
    (void)state;
    static const char *const names[] = {
        "\"../one.safetensors\"", "\"/etc/passwd\"", "\"..\"", "\"\"", "3", "\".safetensors\"", "\"one.bin\"",
        "\"a/b.safetensors\""};
    write_shard("one.safetensors", "{" A ", " B "}", 16);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"weight_map\": {\"a\": %s}}", names[i]);
        model_dir_text(directory, "model.safetensors.index.json", text);
        refused("index.json|weight_map|beside the index");
    }
    model_dir_text(directory, "model.safetensors.index.json", "{\"weight_map\": {}}");
    refused("index.json|weight_map");
    model_dir_text(directory, "model.safetensors.index.json", "{");
    refused("index.json|not JSON");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(reads_one_file),           TEST(says_what_was_expected), TEST(refuses_a_broken_frame),
        TEST(refuses_every_truncation), TEST(refuses_lying_entries),  TEST(reads_shards),
        TEST(refuses_a_bad_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
