#include "bench/decoder/requests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench/decoder/jsonfile.h"
#include "bench/decoder/prompt.h"
#include "bench/decoder/stream.h"

enum { MOST_TOKENS = 1 << 30, MOST_REQUESTS = 1 << 20 };

/* A message may quote the file: it becomes UTF-8 here. */
int request_fail(struct request *request, const struct error *why, struct error *error) {
    struct stream text = {.out = NULL};
    stream_write(&text, why->text, strlen(why->text));
    stream_end(&text);
    request->stop = "error";
    request->why = text.text;
    return text.failed ? error_set(error, "out of memory") : 0;
}

/* --- one line --- */

static int read_ids(const struct jsonfile *object, const json_t *list, int vocab, struct request *request,
                    struct error *error) {
    size_t count = json_array_size(list);
    request->prompt = malloc((count + 1) * sizeof *request->prompt);
    if (!request->prompt) return error_set(error, "out of memory");
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= vocab)
            return jsonfile_refuse(object, "prompt_ids", id, error, "ids from 0 to %d", vocab - 1);
        request->prompt[request->prompt_count++] = (int)json_integer_value(id);
    }
    return json_is_array(list) ? 0 : jsonfile_refuse(object, "prompt_ids", list, error, "a list of ids");
}

static int read_text(const struct requests_rules *rules, const char *text, size_t bytes, struct request *request,
                     struct error *error) {
    if (!rules->tokenizer)
        return error_set(error, "the model has no tokenizer.json, so a text cannot become tokens; give "
                                "{\"prompt_ids\": [1, 2, 3]} a line in a FILE.jsonl");
    return prompt_encode(rules->tokenizer, text, bytes, rules->chat, &request->prompt, &request->prompt_count, error);
}

static int read_fields(const struct jsonfile *object, const struct requests_rules *rules, struct request *request,
                       struct error *error) {
    const json_t *ids = json_object_get(object->root, "prompt_ids");
    const char *field, *text = NULL;
    json_t *value;
    json_object_foreach(object->root, field, value) {
        if (strcmp(field, "prompt") && strcmp(field, "prompt_ids") && strcmp(field, "max_tokens"))
            return jsonfile_refuse(object, field, value, error, "prompt, prompt_ids, max_tokens");
    }
    if (jsonfile_integer(object, object->root, "max_tokens", false, 0, MOST_TOKENS, &request->max_tokens, error) ||
        jsonfile_string(object, object->root, "prompt", !ids, &text, error))
        return -1;
    if (ids && text) return error_set(error, "%s: both prompt and prompt_ids; one is accepted", object->path);
    if (ids && rules->chat) return error_set(error, "%s: --chat needs a text, not prompt_ids", object->path);
    return ids ? read_ids(object, ids, rules->vocab, request, error)
               : read_text(rules, text, strlen(text), request, error);
}

static int read_object(const struct requests_rules *rules, const char *text, size_t bytes, struct request *request,
                       struct error *error) {
    struct jsonfile object = {.path = "the object"};
    json_error_t where;
    object.root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    int status = json_is_object(object.root)
                     ? read_fields(&object, rules, request, error)
                     : error_set(error, "not a JSON object like {\"prompt\": \"...\", \"max_tokens\": 64}%s%s",
                                 object.root ? "" : ": ", object.root ? "" : where.text);
    json_decref(object.root);
    return status;
}

static int check_ids(const struct request *request, int vocab, struct error *error) {
    if (!request->prompt_count) return error_set(error, "the prompt is empty; at least one token is needed");
    for (int i = 0; i < request->prompt_count; i++)
        if (request->prompt[i] >= vocab)
            return error_set(error,
                             "token id %d of tokenizer.json is outside the vocabulary of %d (config.json: "
                             "vocab_size)",
                             request->prompt[i], vocab);
    return 0;
}

/* --- the file --- */

/* Makes room for one more. */
static int grow(struct requests *requests, struct error *error) {
    size_t count = (size_t)requests->count;
    if (count & (count - 1)) return 0;
    if (count == MOST_REQUESTS)
        return error_set(error, "%s: more than %d prompts; that many are accepted", requests->path, MOST_REQUESTS);
    struct request *list = realloc(requests->list, (count ? 2 * count : 1) * sizeof *list);
    if (!list) return error_set(error, "out of memory");
    requests->list = list;
    return 0;
}

static bool is_objects(const char *path) {
    size_t length = strlen(path);
    return length >= 6 && !strcmp(path + length - 6, ".jsonl");
}

static int add(struct requests *requests, int line, const char *text, size_t bytes, const struct requests_rules *rules,
               struct error *error) {
    struct request *request;
    struct error why;
    if (grow(requests, error)) return -1;
    request = &requests->list[requests->count++];
    *request = (struct request){.line = line, .max_tokens = rules->max_tokens};
    if (!(is_objects(requests->path) ? read_object : read_text)(rules, text, bytes, request, &why) &&
        !check_ids(request, rules->vocab, &why))
        return 0;
    return request_fail(request, &why, error);
}

int requests_parse(const char *path, const char *text, size_t bytes, const struct requests_rules *rules,
                   struct requests *requests, struct error *error) {
    const char *end = text + bytes;
    *requests = (struct requests){.path = path};
    for (int line = 1; text < end; line++) {
        const char *next = memchr(text, '\n', (size_t)(end - text));
        size_t length = (size_t)((next ? next : end) - text);
        if (length && text[length - 1] == '\r') length--;
        if (length && add(requests, line, text, length, rules, error)) return -1;
        text = next ? next + 1 : end;
    }
    return requests->count ? 0 : error_set(error, "%s has no prompts; one a line is accepted", path);
}

int requests_read(const char *path, const struct requests_rules *rules, struct requests *requests,
                  struct error *error) {
    size_t bytes;
    *requests = (struct requests){.path = path};
    char *text = prompt_read(path, &bytes, error);
    if (!text) return -1;
    int status = requests_parse(path, text, bytes, rules, requests, error);
    free(text);
    return status;
}

void requests_free(struct requests *requests) {
    for (int i = 0; i < requests->count; i++) {
        free(requests->list[i].prompt);
        free(requests->list[i].ids);
        free(requests->list[i].why);
    }
    free(requests->list);
    *requests = (struct requests){.count = 0};
}

/* --- all of them --- */

int requests_open(const struct requests *requests) {
    int open = 0;
    for (int i = 0; i < requests->count; i++) open += !requests->list[i].stop;
    return open;
}

int requests_context(const struct requests *requests, int most) {
    int context = 0;
    for (int i = 0; i < requests->count; i++) {
        const struct request *r = &requests->list[i];
        if (r->stop || r->prompt_count > most) continue;
        int needed = r->prompt_count + r->max_tokens;
        if (needed > context) context = needed < most ? needed : most;
    }
    return context;
}

int requests_fit(struct requests *requests, int context, int most, struct error *error) {
    struct error why;
    for (int i = 0; i < requests->count; i++) {
        struct request *r = &requests->list[i];
        if (r->stop || r->prompt_count <= context) continue;
        if (r->prompt_count > most)
            error_set(&why,
                      "the prompt has %d tokens; this model takes at most %d (config.json: "
                      "max_position_embeddings)",
                      r->prompt_count, most);
        else
            error_set(&why, "the prompt has %d tokens, more than --ctx %d; with its %d new ones it needs --ctx %d",
                      r->prompt_count, context, r->max_tokens,
                      r->max_tokens < most - r->prompt_count ? r->prompt_count + r->max_tokens : most);
        if (request_fail(r, &why, error)) return -1;
    }
    return 0;
}

/* --- what came of one --- */

static json_t *reply(const struct request *request, const struct tokenizer *tokenizer) {
    struct stream text = {.out = NULL};
    json_t *ids = json_array();
    for (int i = 0; i < request->count; i++) {
        size_t bytes = 0;
        const char *token = tokenizer ? tokenizer_token(tokenizer, request->ids[i], &bytes) : NULL;
        if (token && !tokenizer_special(tokenizer, request->ids[i])) stream_write(&text, token, bytes);
        json_array_append_new(ids, json_integer(request->ids[i]));
    }
    stream_end(&text);
    json_t *object =
        json_pack("{s:i, s:i, s:o, s:s%, s:s, s:o*}", "line", request->line, "prompt_tokens", request->prompt_count,
                  "ids", ids, "text", text.text ? text.text : "", text.length, "stop", request->stop, "ttft_ms",
                  request->count ? json_real(request->first_seconds * 1e3) : NULL);
    if (text.failed) {
        json_decref(object);
        object = NULL;
    }
    stream_free(&text);
    return object;
}

int request_print(const struct request *request, const struct tokenizer *tokenizer, FILE *stream, struct error *error) {
    json_t *object = request->why ? json_pack("{s:i, s:s}", "line", request->line, "error", request->why)
                                  : reply(request, tokenizer);
    int status = object ? json_dumpf(object, stream, JSON_COMPACT | JSON_REAL_PRECISION(9)) : -1;
    json_decref(object);
    if (status || fputc('\n', stream) == EOF || fflush(stream))
        return error_set(error, "the reply to line %d could not be written: %s", request->line, strerror(errno));
    return 0;
}
