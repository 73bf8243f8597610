/* The subcommands. Each lives in the room that it belongs to (cmd_NAME.c), gets argv from its own name on,
 * and returns the exit code: 0 done, 1 failed, 2 wrong usage. Data goes to stdout, words to stderr. */
#ifndef TILEBOOK_COMMANDS_H
#define TILEBOOK_COMMANDS_H

#include <argp.h>
#include <signal.h>

int cmd_devices(int argc, char **argv); /* bench/ */
int cmd_kernels(int argc, char **argv); /* bench/ */
int cmd_sweep(int argc, char **argv);   /* bench/ */
int cmd_compare(int argc, char **argv); /* bench/ */
int cmd_model(int argc, char **argv);   /* bench/decoder/ */
int cmd_decode(int argc, char **argv);  /* bench/decoder/ */
int cmd_plot(int argc, char **argv);    /* plots/ */
int cmd_tune(int argc, char **argv);    /* tuner/ */
int cmd_table(int argc, char **argv);   /* tuner/ */
int cmd_worker(int argc, char **argv);  /* tuner/ */

/* --- what they share --- */

/* Values of options. A bad one ends the program with exit code 2 and says what is accepted. */
const char *argument_device(struct argp_state *state, const char *text); /* cpu, cuda:N, auto */
int argument_group(struct argp_state *state, const char *text);          /* 32, 64, 128; 0: one for all of K */
double argument_time(struct argp_state *state, const char *option, const char *text); /* seconds */
double argument_number(struct argp_state *state, const char *option, const char *text, double least, double most);
long long argument_whole(struct argp_state *state, const char *option, const char *text, long long least,
                         long long most);

/* From here on the first Ctrl-C or SIGTERM sets the flag that this returns, and a second one ends the program. */
const volatile sig_atomic_t *catch_interrupt(void);

#endif
