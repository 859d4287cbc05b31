/* See secret_vault.h.
 *
 * Which identity: AZURE_FEDERATED_TOKEN_FILE with AZURE_TENANT_ID and AZURE_CLIENT_ID (what Azure's workload identity puts into a pod) means an
 * exchange at AZURE_AUTHORITY_HOST; else the machine's metadata service is asked, for the identity AZURE_CLIENT_ID when it is set. The
 * metadata service is at a link-local address, or where AZURE_POD_IDENTITY_AUTHORITY_HOST says; it is never asked through a proxy. */
#include "proxy/secret_vault.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/secret_mem.h"

#define METADATA_URL "http://169.254.169.254"

#define FORM_MAX   (64u << 10)
#define ANSWER_MAX (96u << 10)
#define TOKEN_ROOM (64u << 10)
#define ASK_MS     20000 /* for token and secret together */
#define CONNECT_MS 5000
#define ANSWER_MS  10000

struct vault_room {
    char form[FORM_MAX], answer[ANSWER_MAX], authorization[TOKEN_ROOM], value[VAULT_VALUE_MAX];
};

static struct span variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != 0 ? span_str(value) : SPAN_NONE;
}

bool vault_workload(const char **file)
{
    *file = variable("AZURE_FEDERATED_TOKEN_FILE").p;
    return *file != NULL && variable("AZURE_TENANT_ID").p != NULL && variable("AZURE_CLIENT_ID").p != NULL;
}

/* ---- questions ---- */

static bool server_of(struct vault *v, struct span text, bool https, const char *name, struct str *why)
{
    while (span_ends(text, SPAN("/")))
        text.n--;
    if (url_parse(text, &v->server) && (v->server.tls || !https) && v->server.path.n == 0 &&
        v->server.host.n < sizeof v->name)
        return true;
    str_addf(why, "%s is not an %s URL without a path", name, https ? "https" : "http");
    return false;
}

static void start_call(struct vault *v, enum call_method method, const struct dial_how *how,
                       struct span fields)
{
    struct str host = STR_INIT(v->host), name = STR_INIT(v->name);
    url_add_host(&v->server, &host);
    for (size_t i = 0; i < v->server.host.n; i++) {
        char c = v->server.host.p[i];
        str_addc(&name, c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c);
    }
    MUST(!host.cut && !name.cut);
    v->call.origin = (struct origin){.host = span_str(v->name),
                                     .port = v->server.port,
                                     .tls = v->server.tls,
                                     .max_connections = 2,
                                     .how = how};
    v->call.method = method;
    v->call.target = span_str(v->target);
    v->call.host_field = span_str(v->host);
    v->call.fields = fields;
    v->call.connect_ms = CONNECT_MS;
    v->call.first_byte_ms = v->call.idle_ms = ANSWER_MS;
    v->call.deadline = v->deadline;
    v->call.whole = true;
    v->call.secret = true;
    v->answer_n = 0;
    call_start(v->px->pool, &v->call);
}

static bool ask_exchange(struct vault *v, struct span assertion, struct str *target, struct str *why)
{
    struct str form = str_init(v->room->form, sizeof v->room->form);
    struct span authority = variable("AZURE_AUTHORITY_HOST");
    if (!server_of(v, authority.p != NULL ? authority : v->ref.authority, true, "AZURE_AUTHORITY_HOST", why))
        return false;
    vault_exchange_target(variable("AZURE_TENANT_ID"), target);
    vault_exchange_form(&v->ref, variable("AZURE_CLIENT_ID"), assertion, &form);
    if (target->cut || form.cut) {
        str_addz(why, "AZURE_TENANT_ID, AZURE_CLIENT_ID or the workload's token is too long");
        return false;
    }
    v->call.body = str_span(&form);
    v->exchange = true;
    start_call(v, CALL_POST, setup_cloud(v->setup), SPAN("Accept: application/json\r\n"));
    return true;
}

static bool ask_metadata(struct vault *v, struct str *target, struct str *why)
{
    struct span service = variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    if (!server_of(v, service.p != NULL ? service : SPAN(METADATA_URL), false,
                   "AZURE_POD_IDENTITY_AUTHORITY_HOST", why))
        return false;
    vault_metadata_target(&v->ref, variable("AZURE_CLIENT_ID"), target);
    if (target->cut) {
        str_addz(why, "AZURE_CLIENT_ID is too long");
        return false;
    }
    v->exchange = false;
    start_call(v, CALL_GET, setup_local(v->setup), SPAN("Accept: application/json\r\nMetadata: true\r\n"));
    return true;
}

static void ask_secret(struct vault *v, struct str *target)
{
    vault_secret_target(&v->ref, target);
    MUST(!target->cut); /* vault_parse has bounded it by the configuration's strings */
    v->server = (struct url){.tls = true, .host = v->ref.host, .port = 443};
    v->call.authorization = span_str(v->room->authorization);
    start_call(v, CALL_GET, setup_cloud(v->setup), SPAN("Accept: application/json\r\n"));
}

bool vault_ask(struct vault *v, struct span url, struct span assertion, void (*event)(struct call *call),
               struct str *why)
{
    struct str target = STR_INIT(v->target);
    if (v->room == NULL) {
        v->room = secret_alloc(sizeof *v->room);
        v->deadline = core_now(v->px->core) + ASK_MS;
    }
    if (!vault_parse(url, &v->ref) || v->ref.path.n > sizeof v->target - 32 || v->ref.host.n > 255) {
        str_addz(why, "it is not the address of a secret in Azure Key Vault");
        return false;
    }
    v->call = (struct call){.event = event};
    v->for_token = !span_eq(v->tokens, v->ref.resource);
    if (v->for_token)
        return assertion.p != NULL ? ask_exchange(v, assertion, &target, why) : ask_metadata(v, &target, why);
    ask_secret(v, &target);
    return true;
}

/* ---- answers ---- */

/* Who we are for Azure. */
static void add_identity(const struct vault *v, struct str *why)
{
    struct span client = variable("AZURE_CLIENT_ID");
    str_addz(why, v->exchange ? "the workload identity" : "the managed identity");
    if (client.n > 0)
        str_addf(why, " with the client id " SPAN_FMT, SPAN_ARG(client));
    else
        str_addz(why, " of this machine");
}

static void add_advice(const struct vault *v, unsigned status, struct str *why)
{
    if (v->for_token && !v->exchange) {
        str_addz(why, "give this machine a managed identity, and set AZURE_CLIENT_ID when it has several");
    } else if (v->for_token) {
        str_addz(why, "check the federated credential, the tenant and the client id of ");
        add_identity(v, why);
    } else if (status == 404) {
        str_addz(why, "the vault has no such secret, or no enabled version of it");
    } else {
        str_addz(why, "give ");
        add_identity(v, why);
        str_addz(why, " the role Key Vault Secrets User (get)");
    }
}

static void add_server(const struct vault *v, struct str *why)
{
    str_addz(why, v->for_token
                      ? v->exchange ? "Microsoft Entra ID" : "the metadata service for managed identities"
                      : "Azure Key Vault");
}

static enum vault_next failed_status(struct vault *v, unsigned status, struct str *why)
{
    add_server(v, why);
    str_addf(why, " answered with status %u (", status);
    size_t before = why->n;
    vault_add_error(span_of(v->room->answer, v->answer_n), why);
    if (why->n == before)
        str_addz(why, "no reason given");
    str_addz(why, ")");
    if (status >= 400 && status < 500 && status != 429 && status != 408) {
        str_addz(why, ": ");
        add_advice(v, status, why);
    }
    return VAULT_FAILED;
}

static enum vault_next judge(struct vault *v, struct span *value, struct str *why)
{
    unsigned status = v->call.head->status;
    struct span json = span_of(v->room->answer, v->answer_n);
    if (status != 200)
        return failed_status(v, status, why);
    if (v->for_token) {
        struct str a = str_init(v->room->authorization, sizeof v->room->authorization);
        str_add(&a, SPAN("Bearer "));
        struct str token = str_init(a.p + a.n, a.cap - a.n);
        if (vault_read_token(json, &token)) {
            v->tokens = v->ref.resource;
            return VAULT_ASK;
        }
    } else {
        struct str out = str_init(v->room->value, sizeof v->room->value);
        if (vault_read_secret(json, &out)) {
            *value = str_span(&out);
            return VAULT_VALUE;
        }
    }
    add_server(v, why);
    str_addz(why, "'s answer has not what was asked for");
    return VAULT_FAILED;
}

static enum vault_next gather(struct vault *v, struct span *value, struct str *why)
{
    for (;;) {
        if (v->answer_n == ANSWER_MAX) {
            add_server(v, why);
            str_addz(why, "'s answer is too long");
            return VAULT_FAILED;
        }
        ssize_t n = call_read(&v->call, v->room->answer + v->answer_n, ANSWER_MAX - v->answer_n);
        if (n == CALL_AGAIN)
            return VAULT_WAIT;
        if (n == 0)
            return judge(v, value, why);
        if (n < 0)
            break;
        v->answer_n += (size_t)n;
    }
    add_server(v, why);
    str_addf(why, ": %s", v->call.why);
    return VAULT_FAILED;
}

enum vault_next vault_step(struct vault *v, struct span *value, struct str *why)
{
    enum vault_next next = VAULT_WAIT;
    if (v->call.state == CALL_FAILED) {
        add_server(v, why);
        str_addf(why, ": %s", v->call.why);
        next = VAULT_FAILED;
    } else if (v->call.state == CALL_HEADED || v->call.state == CALL_END) {
        next = gather(v, value, why);
    }
    if (next != VAULT_WAIT)
        call_end(&v->call);
    return next;
}

void vault_end(struct vault *v)
{
    call_end(&v->call);
    secret_free(v->room);
    v->room = NULL;
    v->tokens = SPAN_NONE;
}
