/* The table. To add a command: a line here, and a function. */
#include "cli/check.h"
#include "cli/command_int.h"

#include "base/check.h"

const struct command_option_info command_options[OPT_COUNT] = {
    [OPT_CONFIG] = {'f', "config", NULL, "FILE", VALUES_FILE,
                    "the configuration; else $LARDER_CONFIG, else /etc/larder/config.yaml"},
    [OPT_NAME] = {'n', "name", NULL, "NAME", VALUES_ENTRIES, "the name of the rule or credential set"},
    [OPT_SOURCE] = {'s', "source", NULL, "SOURCE", VALUES_ANY,
                    "registry and repository, as in docker.io/library/nginx or mcr.microsoft.com/dotnet/*"},
    [OPT_TARGET] = {'t', "target", NULL, "TARGET", VALUES_ANY,
                    "the repository that clients ask larder for, as in nginx or dotnet/*"},
    [OPT_CREDENTIAL_SET] = {'c', "credential-set", "cred-set", "CREDENTIAL_SET", VALUES_SETS,
                            "the credential set that the rule uses; without one it pulls anonymously"},
    [OPT_REMOVE_CRED_SET] = {0, "remove-cred-set", NULL, NULL, VALUES_ANY,
                             "the rule uses no credential set any more"},
    [OPT_LOGIN_SERVER] = {'l', "login-server", NULL, "LOGIN_SERVER", VALUES_ANY,
                          "the registry that the credentials are for, as in docker.io"},
    [OPT_USERNAME] = {'u', "username", NULL, "SECRET_REF", VALUES_ANY,
                      "the user's name, or where it is, as in env:HUB_USER"},
    [OPT_PASSWORD] = {'p', "password", NULL, "SECRET_REF", VALUES_ANY,
                      "where the password is, as in file:/run/secrets/hub; never the password itself"},
    [OPT_OUTPUT] = {'o', "output", NULL, "table|json|yaml|tsv", VALUES_WORDS,
                    "how the result is written (default: table)"},
    [OPT_DRY_RUN] = {0, "dry-run", NULL, NULL, VALUES_ANY,
                     "print the change of the file as a diff, and change nothing"},
    [OPT_YES] = {'y', "yes", NULL, NULL, VALUES_ANY, "accepted for scripts; larder asks nothing"},
    [OPT_SCHEMA] = {0, "schema", NULL, NULL, VALUES_ANY,
                    "print every configuration key with type, default and meaning"},
    [OPT_RULE] = {0, "rule", NULL, "NAME", VALUES_RULES, "all that the rule's source has brought"},
    [OPT_FORCE] = {0, "force", NULL, NULL, VALUES_ANY, "also what is pinned"},
    [OPT_LIST] = {0, "list", NULL, NULL, VALUES_ANY, "print what is pinned"},
    [OPT_DEEP] = {0, "deep", NULL, NULL, VALUES_ANY,
                  "compute every digest anew, instead of comparing content sums"},
    [OPT_ALL] = {'a', "all", NULL, NULL, VALUES_ANY,
                 "also manifests without a tag: pulled by digest, or parts of an index"},
    [OPT_BY] = {0, "by", NULL, "rule|repository", VALUES_WORDS,
                "what the bytes are summed up by (default: rule)"},
    [OPT_PLATFORM] =
        {0, "platform", NULL, "PLATFORM[,PLATFORM...]|all", VALUES_ANY,
         "of an index these, as in linux/amd64,linux/arm64 (default: what larder itself runs on)"},
    [OPT_HELP] = {'h', "help", NULL, NULL, VALUES_ANY, "print what a command does and which options it has"},
    [OPT_VERSION] = {0, "version", NULL, NULL, VALUES_ANY, "print larder's version"},
};

static int run_serve(const struct command_args *args)
{
    return args->program->serve(args->option[OPT_CONFIG], args->program->version);
}

static int run_check(const struct command_args *args)
{
    return args->option[OPT_SCHEMA] != NULL ? cli_schema()
                                            : cli_check(args->option[OPT_CONFIG], args->program);
}

#define O(name) (1u << OPT_##name)
#define CHANGE  (O(CONFIG) | O(OUTPUT) | O(DRY_RUN))
#define LOOK    (O(CONFIG) | O(OUTPUT))
#define REFERENCES                                                                                           \
    "A secret reference is env:NAME, file:PATH, https://NAME.vault.azure.net/secrets/SECRET, "               \
    "dockerconfig:PATH or exec:HELPER."

const struct command commands[] = {
    {.words = "serve",
     .doc = "run the cache",
     .more = "It runs in the foreground until SIGTERM or SIGINT, and writes its log to standard error.",
     .optional = O(CONFIG),
     .run = run_serve},
    {.words = "check",
     .doc = "validate the configuration",
     .more =
         "What is wrong with it is printed with line and column, and the exit code is 1: also a certificate, "
         "key or roots that it names and that cannot be used. Secrets that are not to be had where the "
         "command runs are warnings.",
     .optional = O(CONFIG) | O(SCHEMA),
     .run = run_check},
    {.words = "cache create",
     .doc = "add a cache rule",
     .more = "A '*' at the end of both source and target stands for all repositories below; quote it for the "
             "shell.",
     .required = O(NAME) | O(SOURCE) | O(TARGET),
     .optional = O(CREDENTIAL_SET) | CHANGE,
     .run = run_cache_create},
    {.words = "cache show",
     .doc = "print one cache rule",
     .required = O(NAME),
     .optional = LOOK,
     .entries = "cache list",
     .run = run_cache_show},
    {.words = "cache list", .doc = "print all cache rules", .optional = LOOK, .run = run_cache_list},
    {.words = "cache update",
     .doc = "change the credential set of a cache rule",
     .required = O(NAME),
     .one_of = O(CREDENTIAL_SET) | O(REMOVE_CRED_SET),
     .optional = CHANGE,
     .entries = "cache list",
     .run = run_cache_update},
    {.words = "cache delete",
     .doc = "remove a cache rule",
     .more = "Its comments in the file go with it. What it has cached stays in the store.",
     .required = O(NAME),
     .optional = O(CONFIG) | O(DRY_RUN) | O(YES),
     .entries = "cache list",
     .run = run_cache_delete},
    {.words = "credential-set create",
     .doc = "add a credential set",
     .more = REFERENCES " The last two bring the user's name with them.",
     .required = O(NAME) | O(LOGIN_SERVER) | O(PASSWORD),
     .optional = O(USERNAME) | CHANGE,
     .run = run_set_create},
    {.words = "credential-set show",
     .doc = "print one credential set",
     .more = "The references are shown, never the secrets.",
     .required = O(NAME),
     .optional = LOOK,
     .entries = "credential-set list",
     .run = run_set_show},
    {.words = "credential-set list",
     .doc = "print all credential sets",
     .optional = LOOK,
     .run = run_set_list},
    {.words = "credential-set update",
     .doc = "change where a credential set's secrets are",
     .more = REFERENCES,
     .required = O(NAME),
     .any_of = O(USERNAME) | O(PASSWORD),
     .optional = CHANGE,
     .entries = "credential-set list",
     .run = run_set_update},
    {.words = "credential-set delete",
     .doc = "remove a credential set that no rule uses",
     .required = O(NAME),
     .optional = O(CONFIG) | O(DRY_RUN) | O(YES),
     .entries = "credential-set list",
     .run = run_set_delete},
    {.words = "explain",
     .doc = "say which rule is for an image, and where it comes from",
     .more =
         "IMAGE is what a client pulls: by larder's name for it, with or without larder's address "
         "(cache.example:5000/dotnet/sdk:8.0), or, "
         "for a client that uses larder as a mirror, by the registry's (mcr.microsoft.com/dotnet/sdk:8.0).",
     .argument = "IMAGE",
     .argument_required = true,
     .optional = LOOK,
     .run = run_explain},
    {.words = "status",
     .doc = "say how the running server is",
     .more = "Version, configuration, store, connections, and what is out of order.",
     .optional = LOOK,
     .run = run_status},
    {.words = "ls",
     .doc = "list the images in the store",
     .more =
         "PREFIX is how their names begin: with the registry (docker.io/library/), or as clients ask larder "
         "for them. SIZE is what the store has of an image; COMPLETE says of how many of its platforms it "
         "has everything. USED and HITS are written down once a minute.",
     .argument = "PREFIX",
     .optional = LOOK | O(ALL),
     .run = run_ls},
    {.words = "du",
     .doc = "say what uses the store's space",
     .more = "What several have is counted in each of them, and SHARED says how much that is.",
     .optional = LOOK | O(BY),
     .run = run_du},
    {.words = "warm",
     .doc = "fetch images before a client asks for them",
     .more =
         "One after the other, each with all that belongs to it. IMAGE is as for explain: by larder's name "
         "or by the registry's. What is here already is not fetched again. Ctrl-C ends it: "
         "nothing more is begun, what is under way ends as on_abandoned says, and the next time goes on "
         "from there.",
     .argument = "IMAGE",
     .argument_required = true,
     .argument_many = true,
     .optional = LOOK | O(PLATFORM),
     .run = run_warm},
    {.words = "purge",
     .doc = "remove an image from the store",
     .more = "A tag goes with its manifest and what no other image needs, unless another tag names it; a "
             "digest goes "
             "with its tags; with --rule goes all that its source has brought, and no nearer rule's. It is "
             "not served from that moment on; what is pinned stays.",
     .argument = "IMAGE|DIGEST",
     .optional = LOOK | O(RULE) | O(FORCE),
     .run = run_purge},
    {.words = "pin",
     .doc = "keep an image: it is not evicted",
     .more = "A tag keeps whatever it names, now and later; a digest keeps that. All that it refers to is "
             "kept, too. "
             "It need not be in the store yet.",
     .argument = "IMAGE|DIGEST",
     .optional = LOOK | O(LIST),
     .run = run_pin},
    {.words = "unpin",
     .doc = "let a pinned image be evicted again",
     .argument = "IMAGE|DIGEST",
     .argument_required = true,
     .optional = LOOK,
     .run = run_unpin},
    {.words = "verify",
     .doc = "read the store, and compare",
     .more = "All of it, or one image. What is damaged goes to quarantine, and the next pull fetches it "
             "again; the "
             "exit code is 1 then. Ctrl-C ends it.",
     .argument = "IMAGE|DIGEST",
     .optional = LOOK | O(DEEP),
     .run = run_verify},
    {.words = "gc",
     .doc = "tidy the store now",
     .more =
         "Evicts what is above the limits and removes what lies around, which otherwise happens by and by.",
     .optional = LOOK,
     .run = run_gc},
    {.words = "completion",
     .doc = "print the completion script of a shell",
     .more = "For bash: eval \"$(larder completion bash)\". For zsh: larder completion zsh > "
             "\"${fpath[1]}/_larder\".",
     .argument = "bash|zsh",
     .argument_required = true,
     .run = run_completion},
    {.words = "man",
     .doc = "print the manual as roff: larder(1), or with 'config' larder-config(5)",
     .more = "To read it: larder man | man -l -",
     .argument = "config",
     .run = run_man},
};
const size_t n_commands = ARRAY_LEN(commands);

unsigned command_takes(const struct command *c)
{
    return c->required | c->one_of | c->any_of | c->optional | O(HELP);
}
