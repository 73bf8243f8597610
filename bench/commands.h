/* The subcommands. Each lives in the room that it belongs to (cmd_NAME.c), gets argv from its own name on,
 * and returns the exit code: 0 done, 1 failed, 2 wrong usage. Data goes to stdout, words to stderr. */
#ifndef TILEBOOK_COMMANDS_H
#define TILEBOOK_COMMANDS_H

int cmd_devices(int argc, char **argv); /* bench/ */
int cmd_kernels(int argc, char **argv); /* bench/ */
int cmd_sweep(int argc, char **argv);   /* bench/ */
int cmd_model(int argc, char **argv);   /* bench/decoder/ */
int cmd_decode(int argc, char **argv);  /* bench/decoder/ */
int cmd_plot(int argc, char **argv);    /* plots/ */
int cmd_tune(int argc, char **argv);    /* tuner/ */
int cmd_table(int argc, char **argv);   /* tuner/ */

#endif
