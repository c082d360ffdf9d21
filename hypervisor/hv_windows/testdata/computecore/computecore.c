/*
 * A stand-in for Windows' computecore.dll, for tests under Wine. It has the functions that
 * the driver calls, with their ABI, and does what Microsoft's reference says of them:
 * operations that complete on another thread, results that the caller frees, callbacks. It
 * checks documents against schema.json. It starts no machine itself: hcstest.Server does,
 * where there is one.
 *
 * Environment: LSUB_HCS_SCHEMA is the schema's file. LSUB_HCS_FAIL has errors to report, as in
 * "HcsStartComputeSystem=80370114": at once, or with "+" before the number, by the operation.
 * LSUB_HCS_HOST is the port of a hcstest.Server on 127.0.0.1.
 */
#include <winsock2.h>
#include <windows.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define EXPORT __declspec(dllexport)
#define PENDING ((HRESULT)0x80370117)
#define INVALID_JSON ((HRESULT)0x8037010D)
#define NOT_FOUND ((HRESULT)0x8037010E)
#define ALREADY_EXISTS ((HRESULT)0x8037010F)
#define ALREADY_STOPPED ((HRESULT)0x80370110)
#define INVALID_STATE ((HRESULT)0x80370105)

/* ---- JSON, as a tree. Lists are linked. ---- */

typedef struct value {
	enum { NUL, BOOL_, NUMBER, STRING, ARRAY, OBJECT } type;
	double number;
	wchar_t *text;       /* of a string */
	wchar_t *name;       /* within an object */
	struct value *first; /* of an array or object */
	struct value *next;
} value;

typedef struct {
	const wchar_t *at;
	int bad;
} parser;

static void blanks(parser *p) { while (*p->at && wcschr(L" \t\r\n", *p->at)) p->at++; }

static int hex4(parser *p)
{
	int n = 0;
	for (int i = 0; i < 4; i++, p->at++) {
		const wchar_t *digits = L"0123456789abcdef", *d = *p->at ? wcschr(digits, towlower(*p->at)) : NULL;
		if (!d) { p->bad = 1; return 0; }
		n = n * 16 + (int)(d - digits);
	}
	return n;
}

static wchar_t *string(parser *p)
{
	if (*p->at != L'"') { p->bad = 1; return NULL; }
	p->at++;
	wchar_t *s = malloc((wcslen(p->at) + 1) * sizeof *s), *end = s;
	while (*p->at && *p->at != L'"') {
		wchar_t c = *p->at++;
		if (c < 0x20) p->bad = 1;
		if (c == L'\\') {
			c = *p->at++;
			switch (c) {
			case L'"': case L'\\': case L'/': break;
			case L'n': c = L'\n'; break;
			case L't': c = L'\t'; break;
			case L'r': c = L'\r'; break;
			case L'b': c = L'\b'; break;
			case L'f': c = L'\f'; break;
			case L'u': c = (wchar_t)hex4(p); break;
			default: p->bad = 1; *end = 0; return s;
			}
		}
		*end++ = c;
	}
	*end = 0;
	if (*p->at == L'"') p->at++; else p->bad = 1;
	return s;
}

static value *parse(parser *p, int depth);

static void members(parser *p, value *v, wchar_t close, int depth)
{
	value **tail = &v->first;
	p->at++;
	blanks(p);
	if (*p->at == close) { p->at++; return; }
	for (;;) {
		wchar_t *name = NULL;
		blanks(p);
		if (close == L'}') {
			name = string(p);
			blanks(p);
			if (*p->at == L':') p->at++; else p->bad = 1;
		}
		if (p->bad) { free(name); return; }
		*tail = parse(p, depth + 1);
		(*tail)->name = name;
		tail = &(*tail)->next;
		blanks(p);
		if (*p->at == L',') { p->at++; continue; }
		if (*p->at == close) { p->at++; return; }
		p->bad = 1;
		return;
	}
}

static value *parse(parser *p, int depth)
{
	value *v = calloc(1, sizeof *v);
	if (depth > 64) p->bad = 1;
	blanks(p);
	if (p->bad) return v;
	if (*p->at == L'{') { v->type = OBJECT; members(p, v, L'}', depth); }
	else if (*p->at == L'[') { v->type = ARRAY; members(p, v, L']', depth); }
	else if (*p->at == L'"') { v->type = STRING; v->text = string(p); }
	else if (!wcsncmp(p->at, L"true", 4)) { v->type = BOOL_; v->number = 1; p->at += 4; }
	else if (!wcsncmp(p->at, L"false", 5)) { v->type = BOOL_; p->at += 5; }
	else if (!wcsncmp(p->at, L"null", 4)) p->at += 4;
	else {
		wchar_t *end;
		v->type = NUMBER;
		v->number = wcstod(p->at, &end);
		if (end == p->at) p->bad = 1;
		p->at = end;
	}
	return v;
}

static void release(value *v)
{
	while (v) {
		value *next = v->next;
		release(v->first);
		free(v->text);
		free(v->name);
		free(v);
		v = next;
	}
}

static value *document(const wchar_t *text)
{
	parser p = {text, 0};
	value *v = parse(&p, 0);
	blanks(&p);
	if (p.bad || *p.at) { release(v); return NULL; }
	return v;
}

static value *get(value *v, const wchar_t *name)
{
	if (!v || v->type != OBJECT) return NULL;
	for (value *m = v->first; m; m = m->next)
		if (m->name && !wcscmp(m->name, name)) return m;
	return NULL;
}

/* ---- the schema: those words of json-schema.org that schema.json has ---- */

static int has_type(value *v, const wchar_t *type)
{
	switch (v->type) {
	case BOOL_: return !wcscmp(type, L"boolean");
	case NUMBER: return !wcscmp(type, L"integer") && v->number == (double)(long long)v->number;
	case STRING: return !wcscmp(type, L"string");
	case ARRAY: return !wcscmp(type, L"array");
	case OBJECT: return !wcscmp(type, L"object");
	default: return 0;
	}
}

static int valid(value *v, value *schema, wchar_t *why, size_t room)
{
	value *rule, *props, *m;
	if ((rule = get(schema, L"type")) && !has_type(v, rule->text)) {
		swprintf(why, room, L"%ls is no %ls", v->name ? v->name : L"the document", rule->text);
		return 0;
	}
	if ((rule = get(schema, L"enum"))) {
		for (m = rule->first; m; m = m->next)
			if (v->type == STRING && m->type == STRING && !wcscmp(m->text, v->text)) break;
		if (!m) { swprintf(why, room, L"%ls has none of its values", v->name); return 0; }
	}
	if (((rule = get(schema, L"minimum")) && v->number < rule->number) || ((rule = get(schema, L"maximum")) && v->number > rule->number) ||
	    ((rule = get(schema, L"minLength")) && wcslen(v->text) < (size_t)rule->number)) {
		swprintf(why, room, L"%ls is out of bounds", v->name);
		return 0;
	}
	if (v->type != OBJECT) return 1;
	if ((rule = get(schema, L"required")))
		for (m = rule->first; m; m = m->next)
			if (!get(v, m->text)) { swprintf(why, room, L"%ls is missing", m->text); return 0; }
	props = get(schema, L"properties");
	rule = get(schema, L"additionalProperties");
	for (m = v->first; m; m = m->next) {
		value *s = get(props, m->name);
		if (!s && rule && rule->type == OBJECT) s = rule;
		if (!s && rule && rule->type == BOOL_ && !rule->number) { swprintf(why, room, L"%ls is unknown", m->name); return 0; }
		if (s && !valid(m, s, why, room)) return 0;
	}
	return 1;
}

static value *schema(void)
{
	wchar_t path[MAX_PATH];
	if (!GetEnvironmentVariableW(L"LSUB_HCS_SCHEMA", path, MAX_PATH)) return NULL;
	FILE *f = _wfopen(path, L"rb");
	if (!f) return NULL;
	char *bytes = calloc(1, 1 << 20);
	fread(bytes, 1, (1 << 20) - 1, f);
	fclose(f);
	wchar_t *text = calloc(1 << 20, sizeof *text);
	MultiByteToWideChar(CP_UTF8, 0, bytes, -1, text, 1 << 20);
	value *v = document(text);
	free(text);
	free(bytes);
	return v;
}

/* ---- operations and machines ---- */

typedef struct {
	int kind;
	const wchar_t *data;
	void *operation;
} event;

typedef void(CALLBACK *callback)(event *, void *);

typedef struct machine {
	wchar_t id[80], runtime[40], pipe[200];
	int started, paused, gone;
	char *document; /* for a server, in UTF-8 */
	SOCKET life;    /* the server's connection that the machine lives as long as */
	callback cb;
	void *context;
	struct machine *next;
} machine;

typedef struct {
	HANDLE done;
	HRESULT result;
	wchar_t *text; /* by LocalAlloc; NULL for none */
} operation;

typedef struct {
	operation *op;
	machine *m;
	int verb;
	HRESULT result;
} job;

enum { ENUMERATE, CREATE, START, TERMINATE, PAUSE, RESUME, PROPERTIES };

static CRITICAL_SECTION lock;
static machine *machines;
static LONG handles; /* operations and machines that are open */

BOOL WINAPI DllMain(HINSTANCE inst, DWORD reason, LPVOID reserved)
{
	(void)inst;
	(void)reserved;
	if (reason == DLL_PROCESS_ATTACH) {
		WSADATA data;
		InitializeCriticalSection(&lock);
		WSAStartup(MAKEWORD(2, 2), &data);
	}
	return TRUE;
}

/* The error that LSUB_HCS_FAIL has for a function; *later says that its operation has it. */
static HRESULT injected(const wchar_t *function, int *later)
{
	wchar_t list[1000], *at;
	*later = 0;
	if (!GetEnvironmentVariableW(L"LSUB_HCS_FAIL", list, 1000) || !(at = wcsstr(list, function))) return S_OK;
	at += wcslen(function);
	if (*at++ != L'=') return S_OK;
	if (*at == L'+') { *later = 1; at++; }
	return (HRESULT)wcstoul(at, NULL, 16);
}

static wchar_t *local(const wchar_t *s)
{
	wchar_t *copy = LocalAlloc(LMEM_FIXED, (wcslen(s) + 1) * sizeof *copy);
	return wcscpy(copy, s);
}

/* ---- a server that has machines: see server.go for what is said ---- */

/* The server's port; 0 for none. */
static int server(void)
{
	char port[10];
	DWORD n = GetEnvironmentVariableA("LSUB_HCS_HOST", port, sizeof port);
	return n && n < sizeof port ? atoi(port) : 0;
}

/* A line of a connection, without its end; 0 at the end of the connection. */
static int read_line(SOCKET s, char *line, int room)
{
	int n = 0;
	char c;
	while (recv(s, &c, 1, 0) == 1) {
		if (c == '\n') { line[n] = 0; return 1; }
		if (n < room - 1) line[n++] = c;
	}
	return 0;
}

static int send_all(SOCKET s, const char *bytes, size_t n)
{
	while (n > 0) {
		int sent = send(s, bytes, (int)n, 0);
		if (sent <= 0) return 0;
		bytes += sent;
		n -= (size_t)sent;
	}
	return 1;
}

static char *utf8(const wchar_t *s)
{
	int n = WideCharToMultiByte(CP_UTF8, 0, s, -1, NULL, 0, NULL, NULL);
	char *bytes = malloc((size_t)n);
	WideCharToMultiByte(CP_UTF8, 0, s, -1, bytes, n, NULL, NULL);
	return bytes;
}

/* Asks with a request, and returns the connection; answer is the rest of the line. */
static SOCKET ask(const char *request, HRESULT *result, char *answer, int room)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((u_short)server()), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
	*answer = 0;
	*result = (HRESULT)0x8037011E; /* the service is gone */
	if (s == INVALID_SOCKET) return s;
	if (!connect(s, (struct sockaddr *)&at, sizeof at) && send_all(s, request, strlen(request)) && read_line(s, answer, room)) {
		if (!strncmp(answer, "ok", 2)) {
			memmove(answer, answer + (answer[2] ? 3 : 2), strlen(answer) - (answer[2] ? 2 : 1));
			*result = S_OK;
			return s;
		}
		*result = (HRESULT)strtoul(answer + strlen("error "), NULL, 16);
	}
	closesocket(s);
	return INVALID_SOCKET;
}

static DWORD WINAPI follow(LPVOID arg);

/* Has the server do what a verb says. Text is a document of an error. */
static HRESULT serve(machine *m, int verb, wchar_t **text)
{
	static const char *words[] = {[START] = "start", [TERMINATE] = "terminate", [PAUSE] = "pause", [RESUME] = "resume"};
	char answer[600];
	wchar_t wide[600], doc[700];
	HRESULT result;
	size_t room = 300 + (verb == CREATE ? strlen(m->document) : 0);
	char *request = malloc(room);
	if (verb == CREATE) snprintf(request, room, "create %ls %u\n%s", m->id, (unsigned)strlen(m->document), m->document);
	else snprintf(request, room, "%s %ls\n", words[verb], m->runtime);
	SOCKET s = ask(request, &result, answer, sizeof answer);
	free(request);
	if (result != S_OK) {
		for (char *c = answer; *c; c++)
			if (*c == '"' || *c == '\\' || *c < ' ') *c = '\'';
		MultiByteToWideChar(CP_UTF8, 0, answer, -1, wide, 600);
		swprintf(doc, 700, L"{\"ErrorMessage\":\"%ls\"}", wide);
		*text = local(doc);
		return result;
	}
	if (verb != CREATE) {
		closesocket(s);
		return S_OK;
	}
	MultiByteToWideChar(CP_UTF8, 0, answer, -1, m->runtime, 40);
	m->life = s;
	CloseHandle(CreateThread(NULL, 0, follow, m, 0, NULL));
	return S_OK;
}

static void raise_exit(machine *m, const wchar_t *document)
{
	event e = {1, document, NULL};
	EnterCriticalSection(&lock);
	int first = !m->gone;
	callback cb = m->cb;
	void *context = m->context;
	m->gone = 1;
	LeaveCriticalSection(&lock);
	if (first && cb) cb(&e, context);
}

/* Waits for the end of a server's machine. */
static DWORD WINAPI follow(LPVOID arg)
{
	machine *m = arg;
	char line[2000];
	wchar_t doc[2000] = L"{\"Status\":-2143878882,\"ExitType\":\"UnexpectedExit\"}"; /* the service is gone */
	while (read_line(m->life, line, sizeof line))
		if (!strncmp(line, "exit ", 5)) {
			MultiByteToWideChar(CP_UTF8, 0, line + 5, -1, doc, 2000);
			break;
		}
	raise_exit(m, doc);
	return 0;
}

/* The serial port: a pipe that says one line, or what a server's machine does. It closes when
 * the machine is gone. */
static DWORD WINAPI console(LPVOID arg)
{
	machine *m = arg;
	HANDLE pipe = CreateNamedPipeW(m->pipe, PIPE_ACCESS_OUTBOUND, PIPE_TYPE_BYTE | PIPE_WAIT, 1, 4096, 4096, 0, NULL);
	if (pipe == INVALID_HANDLE_VALUE) return 1;
	if (ConnectNamedPipe(pipe, NULL) || GetLastError() == ERROR_PIPE_CONNECTED) {
		const char line[] = "stand-in: the kernel boots\r\n";
		DWORD n;
		if (server()) {
			char bytes[4096];
			HRESULT result;
			int got;
			snprintf(bytes, sizeof bytes, "console %ls %ls\n", m->runtime, m->pipe);
			SOCKET s = ask(bytes, &result, bytes, sizeof bytes);
			while (s != INVALID_SOCKET && (got = recv(s, bytes, sizeof bytes, 0)) > 0 && WriteFile(pipe, bytes, (DWORD)got, &n, NULL)) {}
			if (s != INVALID_SOCKET) closesocket(s);
		} else
			WriteFile(pipe, line, sizeof line - 1, &n, NULL);
		FlushFileBuffers(pipe);
	}
	while (!m->gone) Sleep(5);
	CloseHandle(pipe);
	return 0;
}

static DWORD WINAPI work(LPVOID arg)
{
	job *j = arg;
	machine *m = j->m;
	int exits = 0;
	if (j->result == S_OK) {
		EnterCriticalSection(&lock);
		switch (j->verb) {
		case START:
			if (m->started || m->gone) j->result = INVALID_STATE; else m->started = 1;
			break;
		case TERMINATE:
			if (!m->started || m->gone) j->result = ALREADY_STOPPED; else exits = 1;
			break;
		case PAUSE:
			if (!m->started || m->gone || m->paused) j->result = INVALID_STATE; else m->paused = 1;
			break;
		case RESUME:
			if (!m->paused || m->gone) j->result = INVALID_STATE; else m->paused = 0;
			break;
		case PROPERTIES: {
			wchar_t text[300];
			swprintf(text, 300, L"{\"Id\":\"%ls\",\"SystemType\":\"VirtualMachine\",\"RuntimeId\":\"%ls\",\"State\":\"%ls\"}", m->id, m->runtime, m->started ? L"Running" : L"Created");
			j->op->text = local(text);
			break;
		}
		case ENUMERATE:
			j->op->text = local(L"[]");
			break;
		}
		LeaveCriticalSection(&lock);
	}
	if (j->result == S_OK && server() && j->verb != PROPERTIES && j->verb != ENUMERATE) {
		j->result = serve(m, j->verb, &j->op->text);
		exits = 0; /* the server says so */
		if (j->result != S_OK && j->verb == CREATE) m->gone = 1;
	}
	if (j->verb == START && j->result == S_OK && m->pipe[0]) CloseHandle(CreateThread(NULL, 0, console, m, 0, NULL));
	if (j->result != S_OK && !j->op->text) j->op->text = local(L"{\"ErrorMessage\":\"of the stand-in\"}");
	j->op->result = j->result;
	SetEvent(j->op->done);
	if (exits) raise_exit(m, L"{\"Status\":0,\"ExitType\":\"ForcedExit\"}");
	free(j);
	return 0;
}

static HRESULT begin(const wchar_t *function, int verb, machine *m, operation *op, HRESULT result)
{
	int later;
	HRESULT fail = injected(function, &later);
	if (fail != S_OK && !later) return fail;
	if (!op) return E_INVALIDARG;
	job *j = calloc(1, sizeof *j);
	j->op = op;
	j->m = m;
	j->verb = verb;
	j->result = fail != S_OK ? fail : result;
	CloseHandle(CreateThread(NULL, 0, work, j, 0, NULL));
	return PENDING;
}

EXPORT operation *WINAPI HcsCreateOperation(void *context, void *completion)
{
	if (context || completion) return NULL;
	operation *op = calloc(1, sizeof *op);
	op->done = CreateEventW(NULL, TRUE, FALSE, NULL);
	InterlockedIncrement(&handles);
	return op;
}

EXPORT void WINAPI HcsCloseOperation(operation *op)
{
	CloseHandle(op->done);
	if (op->text) LocalFree(op->text);
	free(op);
	InterlockedDecrement(&handles);
}

EXPORT HRESULT WINAPI HcsWaitForOperationResult(operation *op, DWORD timeout, wchar_t **result)
{
	if (WaitForSingleObject(op->done, timeout) != WAIT_OBJECT_0) return (HRESULT)0x80370118;
	*result = op->text;
	op->text = NULL; /* the caller frees it */
	return op->result;
}

EXPORT HRESULT WINAPI HcsGetServiceProperties(const wchar_t *query, wchar_t **result)
{
	int later;
	HRESULT fail = injected(L"HcsGetServiceProperties", &later);
	if (fail != S_OK) return fail;
	if (wcscmp(query, L"{\"PropertyTypes\":[\"Basic\"]}")) return E_INVALIDARG;
	*result = local(L"{\"Properties\":[{\"SupportedSchemaVersions\":[{\"Major\":1,\"Minor\":0},{\"Major\":2,\"Minor\":6},{\"Major\":2,\"Minor\":3}]}]}");
	return S_OK;
}

EXPORT HRESULT WINAPI HcsEnumerateComputeSystems(const wchar_t *query, operation *op)
{
	(void)query;
	return begin(L"HcsEnumerateComputeSystems", ENUMERATE, NULL, op, S_OK);
}

EXPORT HRESULT WINAPI HcsCreateComputeSystem(const wchar_t *id, const wchar_t *configuration, operation *op, void *security, machine **system)
{
	value *doc = document(configuration), *rules = schema();
	wchar_t why[300] = L"it is no JSON, or there is no schema";
	HRESULT result = S_OK;
	if (security) return E_INVALIDARG;
	if (!doc || !rules || !valid(doc, rules, why, 300)) {
		wchar_t text[400];
		swprintf(text, 400, L"{\"ErrorMessage\":\"%ls\"}", why);
		op->text = local(text);
		result = INVALID_JSON;
	}
	machine *m = calloc(1, sizeof *m);
	wcsncpy(m->id, id, 79);
	value *port = get(get(get(get(get(doc, L"VirtualMachine"), L"Devices"), L"ComPorts"), L"0"), L"NamedPipe");
	if (port && port->type == STRING) wcsncpy(m->pipe, port->text, 199);
	m->document = utf8(configuration);
	m->life = INVALID_SOCKET;
	release(doc);
	release(rules);
	EnterCriticalSection(&lock);
	static int count;
	swprintf(m->runtime, 40, L"00000000-0000-0000-0000-%012x", ++count);
	for (machine *other = machines; other; other = other->next)
		if (!other->gone && !wcscmp(other->id, id)) result = ALREADY_EXISTS;
	if (result == S_OK) {
		m->next = machines;
		machines = m;
	}
	LeaveCriticalSection(&lock);
	*system = NULL;
	HRESULT r = begin(L"HcsCreateComputeSystem", CREATE, m, op, result);
	if (r == PENDING) {
		*system = m;
		InterlockedIncrement(&handles);
	} else
		m->gone = 1;
	return r;
}

/* A machine's memory stays: its threads may still run. */
EXPORT void WINAPI HcsCloseComputeSystem(machine *m)
{
	EnterCriticalSection(&lock);
	m->gone = 1;
	m->cb = NULL;
	LeaveCriticalSection(&lock);
	if (m->life != INVALID_SOCKET) shutdown(m->life, SD_BOTH);
	InterlockedDecrement(&handles);
}

EXPORT HRESULT WINAPI HcsSetComputeSystemCallback(machine *m, DWORD options, void *context, callback cb)
{
	int later;
	HRESULT fail = injected(L"HcsSetComputeSystemCallback", &later);
	if (fail != S_OK) return fail;
	if (options) return E_INVALIDARG;
	EnterCriticalSection(&lock);
	m->cb = cb;
	m->context = context;
	LeaveCriticalSection(&lock);
	return S_OK;
}

#define VERB(name, verb) \
	EXPORT HRESULT WINAPI name(machine *m, operation *op, const wchar_t *options) \
	{ \
		return options ? E_INVALIDARG : begin(L## #name, verb, m, op, S_OK); \
	}
VERB(HcsStartComputeSystem, START)
VERB(HcsTerminateComputeSystem, TERMINATE)
VERB(HcsPauseComputeSystem, PAUSE)
VERB(HcsResumeComputeSystem, RESUME)
VERB(HcsGetComputeSystemProperties, PROPERTIES)

EXPORT HRESULT WINAPI HcsGrantVmAccess(const wchar_t *id, const wchar_t *path)
{
	int later;
	HRESULT fail = injected(L"HcsGrantVmAccess", &later);
	if (fail != S_OK) return fail;
	if (!*id) return E_INVALIDARG;
	if (GetFileAttributesW(path) == INVALID_FILE_ATTRIBUTES) return HRESULT_FROM_WIN32(ERROR_FILE_NOT_FOUND);
	if (!server()) return S_OK;
	char request[1500], answer[300], *name = utf8(id), *file = utf8(path);
	HRESULT result = E_INVALIDARG;
	if (snprintf(request, sizeof request, "grant %s %s\n", name, file) < (int)sizeof request) {
		SOCKET s = ask(request, &result, answer, sizeof answer);
		if (s != INVALID_SOCKET) closesocket(s);
	}
	free(name);
	free(file);
	return result;
}

/* For tests: ends a machine from inside, on another thread. */
typedef struct {
	machine *m;
	wchar_t *document;
} ending;

static DWORD WINAPI end(LPVOID arg)
{
	ending *e = arg;
	raise_exit(e->m, e->document);
	free(e->document);
	free(e);
	return 0;
}

EXPORT HRESULT WINAPI StandInExit(const wchar_t *id, const wchar_t *document)
{
	HRESULT result = NOT_FOUND;
	EnterCriticalSection(&lock);
	for (machine *m = machines; m; m = m->next)
		if (!m->gone && !wcscmp(m->id, id)) {
			ending *e = calloc(1, sizeof *e);
			e->m = m;
			e->document = wcsdup(document);
			CloseHandle(CreateThread(NULL, 0, end, e, 0, NULL));
			result = S_OK;
			break;
		}
	LeaveCriticalSection(&lock);
	return result;
}

/* For tests: how many operations and machines are open. */
EXPORT LONG WINAPI StandInHandles(void) { return handles; }
