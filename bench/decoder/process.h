/* This program once more, in a process of its own: what it leaves on a device goes with it. */
#ifndef TILEBOOK_DECODER_PROCESS_H
#define TILEBOOK_DECODER_PROCESS_H

#include "kernels/error.h"

struct process_result {
    int status;      /* as waitpid gives it */
    char *out, *err; /* what it printed, NUL-terminated */
};

/* Runs it to its end with these arguments, argv[0] and a closing NULL among them. -1 if it cannot be started. */
int process_run(char *const argv[], struct process_result *result, struct error *error);
void process_free(struct process_result *result);

#endif
