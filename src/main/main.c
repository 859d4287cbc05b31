/* The program: the commands of cli/, and serving. */
#include "cli/cli.h"
#include "main/serve.h"

#ifndef LARDER_VERSION
#error "the build defines LARDER_VERSION"
#endif

int main(int argc, char **argv)
{
    static const struct cli_program program = {
        .version = LARDER_VERSION, .takes = serve_takes, .serve = serve_run};
    return cli_main(argc, argv, &program);
}
