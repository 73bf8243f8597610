#include "bench/decoder/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "bench/decoder/bpe.h"
#include "bench/decoder/jsonfile.h"
#include "bench/decoder/nfc.h"

enum { FILE_BYTES = 256 << 20, MOST_IDS = 1 << 22, MOST_SPLITS = 8, TEXT_BYTES = 1 << 26 };

struct token {
    char *bytes; /* NULL: no such id */
    size_t length;
    bool special;
};

struct added {
    char *text; /* as it is searched for */
    size_t length;
    int id;
};

/* Added tokens by descending length; those that begin with one byte lie between two starts. */
struct added_list {
    struct added *list;
    size_t count;
    size_t start[257];
};

struct tokenizer {
    struct token *tokens; /* by id */
    int size;
    int byte_id[256]; /* -1: the vocabulary lacks it */
    struct bpe bpe;
    json_t *words; /* the vocabulary, kept only where whole words win over merges */
    bool nfc;
    struct added_list raw, normalized; /* searched for before and after normalisation */
    pcre2_code *splits[MOST_SPLITS];
    int split_count;
};

/* --- bytes as characters --- */

/* GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 and up. */
static int byte_character(int byte) {
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174) return byte;
    if (byte <= 32) return 256 + byte;
    return byte == 173 ? 256 + 67 : 256 + 33 + byte - 127;
}

static int character_byte(int character) {
    if (character < 256) return character >= 0 && byte_character(character) == character ? character : -1;
    if (character <= 256 + 32) return character - 256;
    if (character == 256 + 67) return 173;
    return character < 256 + 67 ? character - 256 - 33 + 127 : -1;
}

/* The bytes that a vocabulary entry stands for, written over it; entries outside the alphabet stay. */
static size_t to_bytes(char *text, size_t length) {
    size_t count = 0;
    char *bytes = malloc(length + 1);
    if (!bytes) return length;
    for (size_t i = 0; i < length;) {
        utf8proc_int32_t character;
        utf8proc_ssize_t step =
            utf8proc_iterate((utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(length - i), &character);
        int byte = step > 0 ? character_byte(character) : -1;
        if (byte < 0) {
            free(bytes);
            return length;
        }
        bytes[count++] = (char)byte;
        i += (size_t)step;
    }
    memcpy(text, bytes, count);
    text[count] = 0;
    free(bytes);
    return count;
}

/* --- reading: vocabulary and merges --- */

static int give_token(struct tokenizer *tokenizer, int id, const char *text, bool added, bool special) {
    struct token *token = &tokenizer->tokens[id];
    free(token->bytes);
    token->bytes = strdup(text);
    if (!token->bytes) return -1;
    token->length = added ? strlen(text) : to_bytes(token->bytes, strlen(text));
    token->special = special;
    return 0;
}

static int check_id(const struct jsonfile *file, const char *field, const json_t *id, struct error *error) {
    if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < MOST_IDS) return 0;
    return jsonfile_refuse(file, field, id, error, "ids from 0 to %d", MOST_IDS - 1);
}

/* Makes room for the largest id of the vocabulary and of the added tokens. */
static int make_tokens(struct tokenizer *tokenizer, const struct jsonfile *file, json_t *vocab, struct error *error) {
    const char *name;
    json_t *id;
    size_t i;
    json_t *entry;
    int largest = -1;
    if (!json_object_size(vocab)) return jsonfile_refuse(file, "model.vocab", vocab, error, "tokens with their ids");
    json_object_foreach(vocab, name, id) {
        if (check_id(file, "model.vocab", id, error)) return -1;
        if (json_integer_value(id) > largest) largest = (int)json_integer_value(id);
    }
    json_array_foreach(json_object_get(file->root, "added_tokens"), i, entry) {
        id = json_object_get(entry, "id");
        if (check_id(file, "added_tokens.id", id, error)) return -1;
        if (json_integer_value(id) > largest) largest = (int)json_integer_value(id);
    }
    tokenizer->size = largest + 1;
    tokenizer->tokens = calloc((size_t)tokenizer->size, sizeof *tokenizer->tokens);
    return tokenizer->tokens ? 0 : error_set(error, "%s: out of memory", file->path);
}

static void encode_character(int character, char text[5]) {
    text[utf8proc_encode_char(character, (utf8proc_uint8_t *)text)] = 0;
}

static int read_vocab(struct tokenizer *tokenizer, const struct jsonfile *file, json_t *vocab, struct error *error) {
    const char *name;
    json_t *id;
    if (make_tokens(tokenizer, file, vocab, error)) return -1;
    json_object_foreach(vocab, name, id) {
        if (tokenizer->tokens[json_integer_value(id)].bytes)
            return jsonfile_refuse(file, "model.vocab", id, error, "each id once");
        if (give_token(tokenizer, (int)json_integer_value(id), name, false, false))
            return error_set(error, "%s: out of memory", file->path);
    }
    for (int byte = 0; byte < 256; byte++) {
        char text[5];
        encode_character(byte_character(byte), text);
        id = json_object_get(vocab, text);
        tokenizer->byte_id[byte] = id ? (int)json_integer_value(id) : -1;
    }
    return 0;
}

/* The two sides of a merge, "a b" or ["a", "b"]; the first form is cut in `buffer`. -1 if it is neither. */
static int merge_sides(const json_t *merge, char *buffer, const char **left, const char **right) {
    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    if (json_is_array(merge)) return *left && *right && json_array_size(merge) == 2 ? 0 : -1;
    if (!json_is_string(merge)) return -1;
    strcpy(buffer, json_string_value(merge));
    char *space = strchr(buffer, ' ');
    if (!space) return -1;
    *space = 0;
    *left = buffer;
    *right = space + 1;
    return 0;
}

static size_t merge_length(const json_t *merge) {
    if (json_is_string(merge)) return json_string_length(merge);
    return json_string_length(json_array_get(merge, 0)) + json_string_length(json_array_get(merge, 1));
}

static int read_merge(struct tokenizer *tokenizer, const struct jsonfile *file, const json_t *vocab,
                      const json_t *merge, int rank, struct error *error) {
    const char *left, *right;
    size_t length = merge_length(merge) + 1;
    char *buffer = malloc(2 * length), *joined = buffer + length;
    if (!buffer) return error_set(error, "%s: out of memory", file->path);
    const json_t *ids[3] = {NULL};
    if (!merge_sides(merge, buffer, &left, &right)) {
        strcat(strcpy(joined, left), right);
        ids[0] = json_object_get(vocab, left);
        ids[1] = json_object_get(vocab, right);
        ids[2] = json_object_get(vocab, joined);
    }
    free(buffer);
    if (!ids[0] || !ids[1] || !ids[2])
        return jsonfile_refuse(file, "model.merges", merge, error,
                               "\"a b\" or [\"a\", \"b\"] where a, b and ab are in model.vocab (merge %d)", rank);
    bpe_add(&tokenizer->bpe, (struct bpe_merge){(int)json_integer_value(ids[0]), (int)json_integer_value(ids[1]), rank,
                                                (int)json_integer_value(ids[2])});
    return 0;
}

static int read_merges(struct tokenizer *tokenizer, const struct jsonfile *file, const json_t *model,
                       struct error *error) {
    const json_t *merges = json_object_get(model, "merges"), *vocab = json_object_get(model, "vocab");
    if (!json_is_array(merges) || json_array_size(merges) > MOST_IDS)
        return jsonfile_refuse(file, "model.merges", merges, error, "a list of at most %d merges", MOST_IDS);
    if (bpe_create(&tokenizer->bpe, json_array_size(merges))) return error_set(error, "%s: out of memory", file->path);
    for (size_t i = 0; i < json_array_size(merges); i++)
        if (read_merge(tokenizer, file, vocab, json_array_get(merges, i), (int)i, error)) return -1;
    return 0;
}

static int refuse_text(const struct jsonfile *file, const json_t *model, const char *field, struct error *error) {
    const char *text = "";
    if (jsonfile_string(file, model, field, false, &text, error)) return -1;
    return *text ? jsonfile_refuse(file, field, json_object_get(model, field), error, "null or \"\"") : 0;
}

static int read_model(struct tokenizer *tokenizer, const struct jsonfile *file, struct error *error) {
    json_t *model = json_object_get(file->root, "model"), *vocab = json_object_get(model, "vocab");
    const char *type = "BPE";
    double dropout = 0;
    bool whole_words = false;
    if (!json_is_object(model)) return jsonfile_refuse(file, "model", model, error, "an object of type \"BPE\"");
    if (jsonfile_string(file, model, "type", false, &type, error)) return -1;
    if (strcmp(type, "BPE"))
        return jsonfile_refuse(file, "model.type", json_object_get(model, "type"), error, "\"BPE\"");
    if (refuse_text(file, model, "continuing_subword_prefix", error) ||
        refuse_text(file, model, "end_of_word_suffix", error) ||
        jsonfile_number(file, model, "dropout", false, 0, 0, &dropout, error) ||
        jsonfile_bool(file, model, "ignore_merges", false, &whole_words, error))
        return -1;
    if (whole_words) tokenizer->words = json_incref(vocab);
    return read_vocab(tokenizer, file, vocab, error) || read_merges(tokenizer, file, model, error) ? -1 : 0;
}

/* --- reading: added tokens --- */

static int by_start(const void *left, const void *right) {
    const struct added *a = left, *b = right;
    int first = (unsigned char)a->text[0] - (unsigned char)b->text[0];
    if (first) return first;
    return a->length > b->length ? -1 : a->length < b->length;
}

static void index_added(struct added_list *added) {
    if (added->count) qsort(added->list, added->count, sizeof *added->list, by_start);
    for (size_t byte = 0, i = 0; byte <= 256; byte++) {
        while (i < added->count && (unsigned char)added->list[i].text[0] < byte) i++;
        added->start[byte] = i;
    }
}

static int add_added(struct added_list *added, const char *text, int id, bool nfc) {
    size_t length = strlen(text);
    struct added *list = realloc(added->list, (added->count + 1) * sizeof *list);
    if (!list) return -1;
    added->list = list;
    char *copy = nfc ? nfc_normalize(text, length, &length) : strdup(text);
    if (!copy) return -1;
    list[added->count++] = (struct added){copy, length, id};
    return 0;
}

static int read_added_token(struct tokenizer *tokenizer, const struct jsonfile *file, const json_t *entry,
                            struct error *error) {
    static const char *const plain[] = {"single_word", "lstrip", "rstrip"};
    const char *text = "";
    bool special = false, normalized = false;
    int id = 0;
    if (jsonfile_string(file, entry, "content", true, &text, error) ||
        jsonfile_integer(file, entry, "id", true, 0, MOST_IDS - 1, &id, error) ||
        jsonfile_bool(file, entry, "special", false, &special, error) ||
        jsonfile_bool(file, entry, "normalized", false, &normalized, error))
        return error_prefix(error, "added_tokens");
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (json_is_true(json_object_get(entry, plain[i])))
            return jsonfile_refuse(file, plain[i], entry, error, "false: only tokens that match as they stand");
    if (!*text) return jsonfile_refuse(file, "added_tokens.content", entry, error, "a text that is not empty");
    struct added_list *list = normalized ? &tokenizer->normalized : &tokenizer->raw;
    if (give_token(tokenizer, id, text, true, special) || add_added(list, text, id, normalized && tokenizer->nfc))
        return error_set(error, "%s: out of memory", file->path);
    return 0;
}

static int read_added(struct tokenizer *tokenizer, const struct jsonfile *file, struct error *error) {
    const json_t *added = json_object_get(file->root, "added_tokens");
    if (added && !json_is_null(added) && !json_is_array(added))
        return jsonfile_refuse(file, "added_tokens", added, error, "a list");
    for (size_t i = 0; i < json_array_size(added); i++)
        if (read_added_token(tokenizer, file, json_array_get(added, i), error)) return -1;
    index_added(&tokenizer->raw);
    index_added(&tokenizer->normalized);
    return 0;
}

/* --- reading: normalizer and pre-tokenizer --- */

static const char *type_of(const json_t *object) {
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

static int read_normalizer(struct tokenizer *tokenizer, const struct jsonfile *file, struct error *error) {
    const json_t *normalizer = json_object_get(file->root, "normalizer");
    if (!normalizer || json_is_null(normalizer)) return 0;
    tokenizer->nfc = !strcmp(type_of(normalizer), "NFC");
    return tokenizer->nfc ? 0 : jsonfile_refuse(file, "normalizer", normalizer, error, "null or type \"NFC\"");
}

/* Writes \s and \S as Unicode's White_Space, which is what tokenizer.json means by them: PCRE2's also take
 * U+180E. `to` needs 20 times the pattern's length. */
static void rewrite_spaces(const char *pattern, char *to) {
    static const char spaces[] = "\\t-\\r\\x{85}\\p{Z}";
    bool in_class = false;
    for (const char *from = pattern; *from; from++) {
        bool space = from[0] == '\\' && (from[1] == 's' || (from[1] == 'S' && !in_class));
        if (space) {
            to = in_class ? stpcpy(to, spaces) : stpcpy(stpcpy(stpcpy(to, from[1] == 's' ? "[" : "[^"), spaces), "]");
            from++;
            continue;
        }
        *to++ = *from;
        if (from[0] == '\\' && from[1])
            *to++ = *++from;
        else if (!in_class && *from == '[') {
            in_class = true;
            if (from[1] == '^') *to++ = *++from;
            if (from[1] == ']') *to++ = *++from;
        } else if (*from == ']')
            in_class = false;
    }
    *to = 0;
}

static int add_split(struct tokenizer *tokenizer, const struct jsonfile *file, const char *pattern, bool literal,
                     struct error *error) {
    int code;
    PCRE2_SIZE offset;
    PCRE2_UCHAR message[128];
    if (tokenizer->split_count == MOST_SPLITS)
        return error_set(error, "%s: more than %d splits", file->path, MOST_SPLITS);
    char *rewritten = malloc(20 * strlen(pattern) + 1);
    if (!rewritten) return error_set(error, "%s: out of memory", file->path);
    strcpy(rewritten, pattern);
    /* POSIX classes and quotations would need a real parser; they keep PCRE2's meaning. */
    if (!literal && !strstr(pattern, "[:") && !strstr(pattern, "\\Q")) rewrite_spaces(pattern, rewritten);
    pcre2_code *split = pcre2_compile((PCRE2_SPTR)rewritten, PCRE2_ZERO_TERMINATED,
                                      PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C),
                                      &code, &offset, NULL);
    free(rewritten);
    if (!split) {
        pcre2_get_error_message(code, message, sizeof message);
        return error_set(error, "%s: pre_tokenizer: pattern '%.200s': %s", file->path, pattern, (char *)message);
    }
    pcre2_jit_compile(split, PCRE2_JIT_COMPLETE); /* without it, matching is only slower */
    tokenizer->splits[tokenizer->split_count++] = split;
    return 0;
}

static int read_split(struct tokenizer *tokenizer, const struct jsonfile *file, const json_t *split,
                      struct error *error) {
    const json_t *pattern = json_object_get(split, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    if (!behavior || strcmp(behavior, "Isolated"))
        return jsonfile_refuse(file, "pre_tokenizer.behavior", json_object_get(split, "behavior"), error,
                               "\"Isolated\"");
    if (json_is_true(json_object_get(split, "invert")))
        return error_set(error, "%s: pre_tokenizer.invert: found true; accepted: false", file->path);
    if (!regex && !literal)
        return jsonfile_refuse(file, "pre_tokenizer.pattern", pattern, error, "{\"Regex\": ...} or {\"String\": ...}");
    return add_split(tokenizer, file, regex ? regex : literal, !regex, error);
}

static int read_byte_level(struct tokenizer *tokenizer, const struct jsonfile *file, const json_t *byte_level,
                           struct error *error) {
    bool prefix = true, regex = true;
    if (jsonfile_bool(file, byte_level, "add_prefix_space", false, &prefix, error) ||
        jsonfile_bool(file, byte_level, "use_regex", false, &regex, error))
        return -1;
    if (prefix) return error_set(error, "%s: add_prefix_space: found true; accepted: false", file->path);
    if (!regex) return 0;
    return add_split(tokenizer, file, "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
                     false, error);
}

/* Split and ByteLevel, alone or in a Sequence; without ByteLevel the vocabulary would not be one of bytes. */
static int read_pre_tokenizer(struct tokenizer *tokenizer, const struct jsonfile *file, struct error *error) {
    json_t *outer = json_object_get(file->root, "pre_tokenizer");
    const json_t *list = json_object_get(outer, "pretokenizers");
    size_t count = strcmp(type_of(outer), "Sequence") ? 1 : json_array_size(list);
    bool bytes = false;
    for (size_t i = 0; i < count; i++) {
        const json_t *step = strcmp(type_of(outer), "Sequence") ? outer : json_array_get(list, i);
        bool byte_level = !strcmp(type_of(step), "ByteLevel");
        if (bytes || (!byte_level && strcmp(type_of(step), "Split")))
            return jsonfile_refuse(file, "pre_tokenizer", step, error, "\"Split\" steps, then one \"ByteLevel\"");
        bytes = byte_level;
        if (byte_level ? read_byte_level(tokenizer, file, step, error) : read_split(tokenizer, file, step, error))
            return -1;
    }
    return bytes ? 0 : jsonfile_refuse(file, "pre_tokenizer", outer, error, "\"Split\" steps, then one \"ByteLevel\"");
}

static int check_post_processor(const struct jsonfile *file, struct error *error) {
    const json_t *post = json_object_get(file->root, "post_processor");
    if (!post || json_is_null(post) || !strcmp(type_of(post), "ByteLevel")) return 0;
    return jsonfile_refuse(file, "post_processor", post, error,
                           "null or type \"ByteLevel\" (no tokens added around a text)");
}

int tokenizer_open(const char *directory, struct tokenizer **tokenizer, struct error *error) {
    struct jsonfile file;
    *tokenizer = NULL;
    if (jsonfile_read(directory, "tokenizer.json", FILE_BYTES, &file, error)) return -1;
    struct tokenizer *opened = calloc(1, sizeof *opened);
    int status = opened ? 0 : error_set(error, "%s: out of memory", file.path);
    if (!status)
        status = read_normalizer(opened, &file, error) || read_pre_tokenizer(opened, &file, error) ||
                 check_post_processor(&file, error) || read_model(opened, &file, error) ||
                 read_added(opened, &file, error);
    jsonfile_close(&file);
    if (status) {
        tokenizer_close(opened);
        return -1;
    }
    *tokenizer = opened;
    return 0;
}

static void free_added(struct added_list *added) {
    for (size_t i = 0; i < added->count; i++) free(added->list[i].text);
    free(added->list);
}

void tokenizer_close(struct tokenizer *tokenizer) {
    if (!tokenizer) return;
    for (int i = 0; i < tokenizer->size; i++) free(tokenizer->tokens[i].bytes);
    for (int i = 0; i < tokenizer->split_count; i++) pcre2_code_free(tokenizer->splits[i]);
    free_added(&tokenizer->raw);
    free_added(&tokenizer->normalized);
    free(tokenizer->tokens);
    bpe_destroy(&tokenizer->bpe);
    json_decref(tokenizer->words);
    free(tokenizer);
}

/* --- encoding --- */

struct encoding {
    const struct tokenizer *tokenizer;
    struct bpe_scratch scratch;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    int *ids;
    size_t count, room;
    struct error *error;
};

/* Room for `more` ids. */
static int fit(struct encoding *encoding, size_t more) {
    if (encoding->count + more <= encoding->room) return 0;
    size_t room = 2 * (encoding->count + more) + 64;
    int *ids = realloc(encoding->ids, room * sizeof *ids);
    if (!ids) return error_set(encoding->error, "out of memory for %zu ids", room);
    encoding->ids = ids;
    encoding->room = room;
    return 0;
}

/* The id of a whole word, where the file says that this comes before merging; -1 if there is none. */
static int whole_word(const struct tokenizer *tokenizer, const char *word, size_t bytes) {
    char text[512], *end = text;
    if (!tokenizer->words || bytes > sizeof text / 2 - 4) return -1;
    for (size_t i = 0; i < bytes; i++)
        end += utf8proc_encode_char(byte_character((unsigned char)word[i]), (utf8proc_uint8_t *)end);
    *end = 0;
    const json_t *id = json_object_get(tokenizer->words, text);
    return id ? (int)json_integer_value(id) : -1;
}

static int encode_word(struct encoding *encoding, const char *word, size_t bytes) {
    const struct tokenizer *tokenizer = encoding->tokenizer;
    if (fit(encoding, bytes)) return -1;
    int *ids = encoding->ids + encoding->count, whole = whole_word(tokenizer, word, bytes);
    if (whole >= 0) {
        ids[0] = whole;
        encoding->count++;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++) {
        ids[i] = tokenizer->byte_id[(unsigned char)word[i]];
        if (ids[i] < 0)
            return error_set(encoding->error, "tokenizer.json: model.vocab has no token for the byte 0x%02x",
                             (unsigned char)word[i]);
    }
    int count = bpe_apply(&tokenizer->bpe, &encoding->scratch, ids, (int)bytes);
    if (count < 0) return error_set(encoding->error, "out of memory for a word of %zu bytes", bytes);
    encoding->count += (size_t)count;
    return 0;
}

/* The next match of a split in text[from, bytes): 1 and its place, 0 if there is none. */
static int find_match(struct encoding *encoding, int split, const char *text, size_t bytes, size_t from, size_t *begin,
                      size_t *end) {
    int found = pcre2_match(encoding->tokenizer->splits[split], (PCRE2_SPTR)text, bytes, from,
                            PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, encoding->match, encoding->context);
    if (found == PCRE2_ERROR_NOMATCH) return 0;
    if (found < 0) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(found, message, sizeof message);
        return error_set(encoding->error, "tokenizer.json: pre_tokenizer: the pattern failed on this text: %s",
                         (char *)message);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(encoding->match);
    *begin = place[0];
    *end = place[1];
    /* A pattern that moves its own start (\K) can claim nonsense. */
    return *begin >= from && *end > *begin ? 1 : error_set(encoding->error, "tokenizer.json: pre_tokenizer: bad match");
}

/* Cuts the text by the splits from `split` on; what lies between matches is a piece too. */
static int encode_piece(struct encoding *encoding, int split, const char *text, size_t bytes) {
    if (!bytes) return 0;
    if (split == encoding->tokenizer->split_count) return encode_word(encoding, text, bytes);
    for (size_t from = 0; from < bytes;) {
        size_t begin = bytes, end = bytes;
        if (find_match(encoding, split, text, bytes, from, &begin, &end) < 0 ||
            encode_piece(encoding, split + 1, text + from, begin - from) ||
            encode_piece(encoding, split + 1, text + begin, end - begin))
            return -1;
        from = end;
    }
    return 0;
}

/* The longest added token at `text`; NULL if there is none. */
static const struct added *find_added(const struct added_list *added, const char *text, size_t bytes) {
    unsigned char first = (unsigned char)text[0];
    for (size_t i = added->start[first]; i < added->start[first + 1]; i++)
        if (added->list[i].length <= bytes && !memcmp(added->list[i].text, text, added->list[i].length))
            return &added->list[i];
    return NULL;
}

static int encode_normalized(struct encoding *encoding, const char *text, size_t bytes);

/* Cuts added tokens out of the text and hands what lies between to the next stage. */
static int cut_added(struct encoding *encoding, const struct added_list *added, const char *text, size_t bytes) {
    bool raw = added == &encoding->tokenizer->raw;
    size_t done = 0;
    for (size_t i = 0; i <= bytes; i++) {
        const struct added *found = i < bytes ? find_added(added, text + i, bytes - i) : NULL;
        if (!found && i < bytes) continue;
        if (raw ? encode_normalized(encoding, text + done, i - done) : encode_piece(encoding, 0, text + done, i - done))
            return -1;
        if (!found) break;
        if (fit(encoding, 1)) return -1;
        encoding->ids[encoding->count++] = found->id;
        done = i + found->length;
        i = done - 1;
    }
    return 0;
}

static bool is_ascii(const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)text[i] >= 0x80) return false;
    return true;
}

static int encode_normalized(struct encoding *encoding, const char *text, size_t bytes) {
    const struct added_list *added = &encoding->tokenizer->normalized;
    if (!bytes) return 0;
    if (!encoding->tokenizer->nfc || is_ascii(text, bytes)) return cut_added(encoding, added, text, bytes);
    char *normalized = nfc_normalize(text, bytes, &bytes);
    if (!normalized) return error_set(encoding->error, "out of memory normalising %zu bytes", bytes);
    int status = cut_added(encoding, added, normalized, bytes);
    free(normalized);
    return status;
}

static int check_utf8(const char *text, size_t bytes, struct error *error) {
    if (bytes > TEXT_BYTES) return error_set(error, "the text has %zu bytes; accepted: up to %d", bytes, TEXT_BYTES);
    for (size_t i = 0; i < bytes;) {
        utf8proc_int32_t character;
        utf8proc_ssize_t step =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(bytes - i), &character);
        if (step <= 0) return error_set(error, "the text is not UTF-8 at byte %zu (0x%02x)", i, (unsigned char)text[i]);
        i += (size_t)step;
    }
    return 0;
}

static int start_matching(struct encoding *encoding) {
    encoding->match = pcre2_match_data_create(1, NULL);
    encoding->context = pcre2_match_context_create(NULL);
    encoding->stack = pcre2_jit_stack_create(32 << 10, 16 << 20, NULL);
    if (!encoding->match || !encoding->context) return error_set(encoding->error, "out of memory");
    pcre2_set_heap_limit(encoding->context, 256 << 10);
    if (encoding->stack) pcre2_jit_stack_assign(encoding->context, NULL, encoding->stack);
    return 0;
}

int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, int **ids, int *count,
                     struct error *error) {
    struct encoding encoding = {.tokenizer = tokenizer, .error = error};
    *ids = NULL;
    *count = 0;
    if (check_utf8(text, bytes, error)) return -1;
    int status = start_matching(&encoding) || fit(&encoding, 1) || cut_added(&encoding, &tokenizer->raw, text, bytes);
    pcre2_match_data_free(encoding.match);
    pcre2_match_context_free(encoding.context);
    pcre2_jit_stack_free(encoding.stack);
    bpe_scratch_free(&encoding.scratch);
    if (status) {
        free(encoding.ids);
        return -1;
    }
    *ids = encoding.ids;
    *count = (int)encoding.count;
    return 0;
}

/* --- decoding --- */

int tokenizer_size(const struct tokenizer *tokenizer) {
    return tokenizer->size;
}

const char *tokenizer_token(const struct tokenizer *tokenizer, int id, size_t *bytes) {
    if (id < 0 || id >= tokenizer->size) return NULL;
    *bytes = tokenizer->tokens[id].length;
    return tokenizer->tokens[id].bytes;
}

bool tokenizer_special(const struct tokenizer *tokenizer, int id) {
    return id >= 0 && id < tokenizer->size && tokenizer->tokens[id].special;
}
