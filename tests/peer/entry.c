/* A library that is no peer. */
extern const int tilebook_something_else;
const int tilebook_something_else = 1;
