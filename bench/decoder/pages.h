/* Who has which pages of the KV cache. A page holds OPS_PAGE positions of one sequence, in every layer; a sequence
 * reserves what it will need before it begins, so that none ever stops for want of a page, and gives all back when it
 * ends. The host's alone: the model writes the lists where attention reads them. */
#ifndef TILEBOOK_DECODER_PAGES_H
#define TILEBOOK_DECODER_PAGES_H

#include <stdint.h>

#include "kernels/device.h"

struct pages;

/* Pages that so many positions fill. */
int pages_for(int positions);

/* `count` free pages, for sequences of up to `context` positions each. */
int pages_create(int count, int sequences, int context, struct pages **pages, struct error *error);
void pages_destroy(struct pages *pages);

/* Gives a sequence room for `positions`, from 1 to the context, in place of what it had. Errors: too few are free. */
int pages_reserve(struct pages *pages, int sequence, int positions, struct error *error);
/* Takes all pages of a sequence back. */
void pages_release(struct pages *pages, int sequence);

int pages_count(const struct pages *pages);
int pages_free(const struct pages *pages);
/* Positions that a sequence has reserved. */
int pages_reserved(const struct pages *pages, int sequence);
/* Pages of the context: what pages_list has, page by page; those beyond the reserved ones mean nothing, but are 0 or
 * more. */
int pages_pitch(const struct pages *pages);
const int32_t *pages_list(const struct pages *pages, int sequence);

#endif
