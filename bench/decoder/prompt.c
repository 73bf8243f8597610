#include "bench/decoder/prompt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 64 << 20 };

int prompt_ids(const char *text, int vocab, int **ids, int *count, struct error *error) {
    *count = 0;
    *ids = malloc((strlen(text) + 1) * sizeof **ids);
    if (!*ids) return error_set(error, "out of memory");
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || (*end && *end != ',') || errno || id < 0 || id >= vocab)
            return error_set(error, "--prompt-ids: '%.20s' does not begin with an id from 0 to %d", at, vocab - 1);
        (*ids)[(*count)++] = (int)id;
        if (!*(at = end)) return 0;
    }
}

char *prompt_read(const char *path, size_t *bytes, struct error *error) {
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    char *text = file ? malloc(MAX_FILE) : NULL;
    *bytes = text ? fread(text, 1, MAX_FILE, file) : 0;
    if (!text || ferror(file) || *bytes == MAX_FILE) {
        error_set(error, "%s: %s", path,
                  *bytes == MAX_FILE ? "64 MiB or more; shorter prompts are accepted" : strerror(errno));
        free(text);
        text = NULL;
    }
    if (file && file != stdin) fclose(file);
    return text;
}

static const char before[] = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
                             "assistant.<|im_end|>\n<|im_start|>user\n";
static const char after[] = "<|im_end|>\n<|im_start|>assistant\n";

/* `before`, the text, `after`. */
static char *chat_turns(const char *text, size_t bytes, size_t *size) {
    char *chat = malloc(sizeof before + bytes + sizeof after);
    if (!chat) return NULL;
    memcpy(chat, before, sizeof before - 1);
    memcpy(chat + sizeof before - 1, text, bytes);
    memcpy(chat + sizeof before - 1 + bytes, after, sizeof after);
    *size = sizeof before - 1 + bytes + sizeof after - 1;
    return chat;
}

/* A tokenizer that spells <|im_start|> out was not made for this chat. */
static int check_chat(const struct tokenizer *tokenizer, struct error *error) {
    int *ids = NULL, count = 0;
    if (tokenizer_encode(tokenizer, "<|im_start|>", 12, &ids, &count, error)) return -1;
    free(ids);
    return count == 1 ? 0
                      : error_set(error, "--chat: tokenizer.json has no token <|im_start|>; prompts without --chat "
                                         "are accepted");
}

int prompt_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, bool chat, int **ids, int *count,
                  struct error *error) {
    if (chat && check_chat(tokenizer, error)) return -1;
    size_t size = bytes;
    char *turns = chat ? chat_turns(text, bytes, &size) : NULL;
    if (chat && !turns) return error_set(error, "out of memory");
    int status = tokenizer_encode(tokenizer, chat ? turns : text, size, ids, count, error);
    free(turns);
    return status ? error_prefix(error, "the prompt") : 0;
}
