/* Named ranges for a timeline viewer (domain "tilebook"). Without the toolkit, or without a viewer
 * attached, they do nothing. */
#ifndef TILEBOOK_NVTX_H
#define TILEBOOK_NVTX_H

void nvtx_push(const char *name); /* copied */
void nvtx_pop(void);

#endif
