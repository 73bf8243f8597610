#include "bench/decoder/bpe.h"

#include <stdbool.h>
#include <stdlib.h>

/* A token of the word so far; its neighbours by index, -1 at the ends. Absorbed ones have id -1. */
struct bpe_symbol {
    int id, previous, next;
};

/* Two neighbours that may merge; stale when either has changed since. */
struct bpe_candidate {
    int place;
    struct bpe_merge merge;
};

int bpe_create(struct bpe *bpe, size_t merges) {
    size_t slots = 16;
    while (slots < 2 * merges) slots *= 2;
    bpe->slots = malloc(slots * sizeof *bpe->slots);
    bpe->mask = slots - 1;
    if (!bpe->slots) return -1;
    for (size_t i = 0; i < slots; i++) bpe->slots[i].left = -1;
    return 0;
}

void bpe_destroy(struct bpe *bpe) {
    free(bpe->slots);
    bpe->slots = NULL;
}

/* The pair's slot, or the empty one where it would go. */
static struct bpe_merge *slot(const struct bpe *bpe, int left, int right) {
    uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15;
    hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93;
    for (size_t i = hash ^ hash >> 32;; i++) {
        struct bpe_merge *merge = &bpe->slots[i & bpe->mask];
        if (merge->left < 0 || (merge->left == left && merge->right == right)) return merge;
    }
}

void bpe_add(struct bpe *bpe, struct bpe_merge merge) {
    *slot(bpe, merge.left, merge.right) = merge;
}

static bool before(const struct bpe_candidate *a, const struct bpe_candidate *b) {
    return a->merge.rank != b->merge.rank ? a->merge.rank < b->merge.rank : a->place < b->place;
}

static void push(struct bpe_scratch *scratch, struct bpe_candidate candidate) {
    struct bpe_candidate *heap = scratch->heap;
    size_t i = scratch->heap_count++;
    for (size_t parent; i > 0 && before(&candidate, &heap[parent = (i - 1) / 2]); i = parent) heap[i] = heap[parent];
    heap[i] = candidate;
}

static struct bpe_candidate pop(struct bpe_scratch *scratch) {
    struct bpe_candidate *heap = scratch->heap, top = heap[0], last = heap[--scratch->heap_count];
    size_t i = 0, count = scratch->heap_count;
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &last)) break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

/* Pushes the pair that begins at `place`, if it is one. */
static void consider(const struct bpe *bpe, struct bpe_scratch *scratch, int place) {
    const struct bpe_symbol *symbols = scratch->symbols;
    if (place < 0 || symbols[place].next < 0) return;
    const struct bpe_merge *merge = slot(bpe, symbols[place].id, symbols[symbols[place].next].id);
    if (merge->left >= 0) push(scratch, (struct bpe_candidate){place, *merge});
}

static void absorb(const struct bpe *bpe, struct bpe_scratch *scratch, const struct bpe_candidate *candidate) {
    struct bpe_symbol *symbols = scratch->symbols, *left = &symbols[candidate->place];
    if (left->id != candidate->merge.left || left->next < 0) return;
    struct bpe_symbol *right = &symbols[left->next];
    if (right->id != candidate->merge.right) return;
    left->id = candidate->merge.merged;
    left->next = right->next;
    right->id = -1;
    if (left->next >= 0) symbols[left->next].previous = candidate->place;
    consider(bpe, scratch, left->previous);
    consider(bpe, scratch, candidate->place);
}

static int fit(struct bpe_scratch *scratch, size_t count) {
    if (count <= scratch->room) return 0;
    bpe_scratch_free(scratch);
    size_t room = count < 64 ? 64 : count;
    scratch->symbols = malloc(room * sizeof *scratch->symbols);
    /* One candidate a pair, then two a merge, and every merge removes a symbol. */
    scratch->heap = malloc(3 * room * sizeof *scratch->heap);
    if (!scratch->symbols || !scratch->heap) return -1;
    scratch->room = room;
    return 0;
}

int bpe_apply(const struct bpe *bpe, struct bpe_scratch *scratch, int *ids, int count) {
    if (fit(scratch, (size_t)count)) return -1;
    struct bpe_symbol *symbols = scratch->symbols;
    for (int i = 0; i < count; i++) symbols[i] = (struct bpe_symbol){ids[i], i - 1, i + 1 < count ? i + 1 : -1};
    scratch->heap_count = 0;
    for (int i = 0; i < count; i++) consider(bpe, scratch, i);
    while (scratch->heap_count) {
        struct bpe_candidate best = pop(scratch);
        absorb(bpe, scratch, &best);
    }
    int left = 0;
    for (int i = 0; i >= 0 && i < count; i = symbols[i].next) ids[left++] = symbols[i].id;
    return left;
}

void bpe_scratch_free(struct bpe_scratch *scratch) {
    free(scratch->symbols);
    free(scratch->heap);
    *scratch = (struct bpe_scratch){0};
}
