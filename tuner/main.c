#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernel.h"
#include "bench/commands.h"
#include "tuner/worker.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help; /* NULL: not for people */
};

static const struct command commands[] = {
    {"devices", cmd_devices, "what can run here: cpu, cuda:0 ..."},
    {"kernels", cmd_kernels, "ops, kernels, their tile parameters and the size of the space"},
    {"sweep", cmd_sweep, "benchmark kernels over shapes and configurations"},
    {"compare", cmd_compare, "faster, slower or tie: two results, or two configurations in one run"},
    {"tune", cmd_tune, "search the best configurations and write a tile table"},
    {"table", cmd_table, "show, lint or export a tile table; merge the trials of several"},
    {"plot", cmd_plot, "draw all figures from measured results"},
    {"model", cmd_model, "read, make or tokenize with a checkpoint"},
    {"decode", cmd_decode, "generate text with a Qwen2 model"},
    {WORKER_COMMAND, cmd_worker, NULL},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *stream) {
    fprintf(stream, "usage: tilebook COMMAND [OPTIONS]    (tilebook COMMAND --help tells more)\n\n");
    for (int i = 0; i < COMMANDS && commands[i].help; i++)
        fprintf(stream, "  %-9s %s\n", commands[i].name, commands[i].help);
}

/* Data that did not reach its reader is a failure of every command. */
static int finish(int code) {
    if ((!fflush(stdout) && !ferror(stdout)) || code) return code;
    fprintf(stderr, "tilebook: standard output: %s\n", strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    struct error error;
    if (kernel_list_check(&error)) {
        fprintf(stderr, "tilebook: %s\n", error.text);
        return 1;
    }
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return 0;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name)) return finish(commands[i].run(argc - 1, argv + 1));
    fprintf(stderr, "tilebook: there is no command '%s'\n\n", argv[1]);
    usage(stderr);
    return 2;
}
