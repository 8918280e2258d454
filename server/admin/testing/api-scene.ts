import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { RecoveryReport } from '../../../backends/contract/recovery.js';
import type { Coordinator } from '../../../backends/contract/coordinator.js';
import type { Clock, Logger, Meter } from '../../../backends/contract/environment.js';
import { createAuthorizer } from '../../auth/access-rules.js';
import { createAccessDirectory } from '../../auth/access-directory.js';
import { createAccounts } from '../../auth/account-store.js';
import { createOpenIdIssuers } from '../../auth/openid-issuers.js';
import { createCertificateAuthorities } from '../../auth/certificate-authorities.js';
import type { Accounts, NewToken } from '../../auth/accounts.js';
import { asCoordinator, MemoryCoordinator, unused } from '../../auth/memory-coordinator.fixture.js';
import { createHookStore } from '../../../hooks/custom/hook-store.js';
import { createQuotas } from '../../../hooks/quota/quotas.js';
import { createWebhooks } from '../../../hooks/webhooks/webhooks.js';
import { createRuleStore } from '../../../hooks/rules/rule-store.js';
import { createOpenpgpKeys } from '../../auth/openpgp-keys.js';
import { ClientRates, type RateLimits } from '../../core/client-rates.js';
import type { Principal } from '../../auth/principal.js';
import type { AuditEvent } from '../../observe/audit.js';
import { adminEndpoints, createAdminApi } from '../admin-api.js';
import { answers, problem } from '../answers.js';
import { HiddenPositions } from '../hidden-positions.js';
import { RequestRecords } from '../request-records.js';
import type { Endpoint } from '../endpoint.js';
import type { AdminApiOptions } from '../options.js';
import { MemoryBackend } from './memory-backend.js';

export const testClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true) {
        resolve();
        return;
      }
      const end = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', end);
        resolve();
      };
      const timer = setTimeout(end, ms).unref();
      signal?.addEventListener('abort', end);
    }),
};

const noMeter: Meter = {
  count: () => undefined,
  observe: () => undefined,
  gauge: () => undefined,
};

export interface ApiAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body as JSON; undefined when it is none. */
  readonly body: Readonly<Record<string, unknown>> | undefined;
}

export interface ApiRequest {
  readonly token?: string | undefined;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** Signs in as `machine`: a CI job that administers what is below team/. */
export const machineToken = 'a.b.c';
const machine: Principal = {
  kind: 'machine',
  name: 'oidc:ci:job',
  reach: [{ pattern: 'team/*', level: 'admin' }],
};

/** The admin API over real HTTP, with real accounts and rules, and a backend in memory. */
export class ApiScene {
  readonly backend: MemoryBackend;
  readonly accounts: Accounts;
  readonly audited: AuditEvent[] = [];
  /** Everything logged, as JSON lines. */
  readonly logged: string[] = [];
  readonly url: string;
  readonly options: AdminApiOptions;
  readonly #server: Server;
  #endpoints: readonly Endpoint[] | undefined;

  private constructor(parts: {
    backend: MemoryBackend;
    accounts: Accounts;
    audited: AuditEvent[];
    logged: string[];
    server: Server;
    options: AdminApiOptions;
  }) {
    this.options = parts.options;
    this.backend = parts.backend;
    this.accounts = parts.accounts;
    this.audited = parts.audited;
    this.logged = parts.logged;
    this.#server = parts.server;
    const address = parts.server.address();
    if (address === null || typeof address === 'string') throw new Error('no TCP address');
    this.url = `http://127.0.0.1:${address.port}`;
  }

  static async open(
    options: {
      readonly noAuth?: boolean;
      readonly draining?: AbortSignal;
      readonly clock?: Clock;
      readonly rates?: Partial<RateLimits>;
      /** What a recovery of the cluster reports. */
      readonly recovered?: Partial<RecoveryReport>;
      readonly coordinatorView?: Partial<AdminApiOptions['coordinatorView']>;
      readonly localAdmin?: AdminApiOptions['localAdmin'];
      /** Shared with another scene: another front-end. */
      readonly coordinator?: Coordinator;
    } = {},
  ): Promise<ApiScene> {
    const clock = options.clock ?? testClock;
    const random = { bytes: (length: number) => randomBytes(length) };
    const coordinator = options.coordinator ?? asCoordinator(new MemoryCoordinator());
    const accounts = createAccounts({
      coordinator,
      clock,
      random,
      issuers: {
        authenticate: async (token) => (token === machineToken ? machine : undefined),
      },
    });
    const backend = new MemoryBackend();
    const audited: AuditEvent[] = [];
    const logged: string[] = [];
    const api: AdminApiOptions = {
      backend,
      recovery: {
        run: () =>
          Promise.resolve({
            compared: 0,
            found: [],
            nodes: [],
            unheard: [],
            unrecorded: [],
            frozen: undefined,
            applied: false,
            restart: undefined,
            ...options.recovered,
          }),
      },
      coordinatorView: {
        members: () => Promise.resolve([]),
        lostForMs: () => undefined,
        readsWithoutMs: 3_600_000,
        ...options.coordinatorView,
      },
      accounts,
      localAdmin: options.localAdmin ?? { principalOf: () => undefined },
      directory: createAccessDirectory({ coordinator, clock }),
      rules: createRuleStore(coordinator),
      hooks: createHookStore({ coordinator, clock, random }),
      quotas: createQuotas({
        coordinator,
        clock,
        logger: recordingLogger(logged, {}),
        meter: noMeter,
        repositories: () => backend.repositories,
        repositoryName: async (id) => backend.records.get(id)?.name,
        diskBytes: async () => 1000 * 1024 ** 3,
        overcommitPercent: 100,
        warnPercent: 80,
      }),
      hooksEnabled: true,
      webhooks: createWebhooks({
        coordinator,
        // Nothing is delivered here.
        lease: { current: unused, leave: unused },
        clock,
        random,
        logger: recordingLogger(logged, {}),
        meter: noMeter,
        version: '0.0.0',
        publicUrl: undefined,
        repositoryName: async (id) => backend.records.get(id)?.name,
        options: {
          enabled: true,
          concurrency: 1,
          firstRetryMs: 10_000,
          retryForMs: 60_000,
          timeoutMs: 1_000,
          allowedNetworks: '',
        },
      }),
      hostCertificates: {
        report: () => [
          {
            type: 'ssh-ed25519',
            fingerprint: 'SHA256:x',
            publicKey: 'ssh-ed25519 AAAA',
            certificate: {
              keyId: 'host',
              serial: '1',
              principals: ['git.example.org'],
              authority: 'SHA256:y',
              validUntil: '2026-12-01T00:00:00Z',
            },
            problem: null,
          },
        ],
      },
      openpgpKeys: createOpenpgpKeys({ coordinator, clock }),
      issuers: createOpenIdIssuers({ coordinator, clock }),
      authorities: createCertificateAuthorities({ coordinator, accounts, clock }),
      authorizer: createAuthorizer({ autoCreate: true }),
      audit: {
        record: (event) => void audited.push(event),
        flush: async () => undefined,
        close: async () => undefined,
      },
      auditTrail: { query: async () => ({ events: [], next: undefined }) },
      auditTail: {
        end: async () => '1-0',
        since: async () => ({ events: [], position: '1-0', atEnd: true }),
      },
      // An answer without an end says what there is, and ends.
      draining: options.draining ?? AbortSignal.abort(),
      logger: recordingLogger(logged, {}),
      meter: noMeter,
      requestRecords: new RequestRecords({
        coordinator,
        clock,
        logger: recordingLogger(logged, {}),
      }),
      hiddenPositions: new HiddenPositions({ coordinator, random }),
      rates: new ClientRates(
        'admin',
        { ratePerPrincipal: 0, ratePerAddress: 0, ratePerRepository: 0, ...options.rates },
        { clock, meter: noMeter },
      ),
      clock,
      random,
      noAuth: options.noAuth ?? false,
      version: '0.0.0',
      serverInfo: () => ({
        version: '0.0.0',
        startedAtMs: clock.nowMs(),
        httpUrl: 'http://127.0.0.1:8080',
        sshUrl: undefined,
        opsUrl: undefined,
        notes: { 'ssh cryptography': 'native' },
      }),
    };
    const server = createServer(createAdminApi(api));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new ApiScene({ backend, accounts, audited, logged, server, options: api });
  }

  /** A repository that `root` administers. */
  async createRepository(name: string, options: { readonly public?: boolean } = {}): Promise<void> {
    await this.backend.repositories.create({
      name,
      defaultBranch: 'main',
      objectFormat: 'sha1',
      settings: {},
      access: { public: options.public ?? false, grants: { root: 'admin' } },
    });
  }

  /** A token's secret for a user, who is made when there is none of that name. */
  async token(
    user: string,
    token: Partial<NewToken> & { readonly admin?: boolean; readonly canCreate?: boolean } = {},
  ): Promise<string> {
    const { admin = false, canCreate = true, ...rest } = token;
    if ((await this.accounts.getUser(user)) === undefined) {
      await this.accounts.createUser({ name: user, admin, canCreate });
    }
    const created = await this.accounts.createToken({
      user,
      name: 'test',
      scope: 'admin',
      ...rest,
    });
    return created.secret;
  }

  async request(method: string, path: string, request: ApiRequest = {}): Promise<ApiAnswer> {
    const { token, body, headers = {}, signal } = request;
    const response = await fetch(`${this.url}/api/v1${path}`, {
      method,
      headers: {
        ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined
        ? {}
        : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    });
    const text = await response.text();
    this.#checkDocumented(method, path, {
      status: response.status,
      text,
      type: response.headers.get('content-type') ?? '',
    });
    return { status: response.status, headers: response.headers, text, body: jsonObject(text) };
  }

  /** Every answer is as the OpenAPI document says: a problem, or what `answers.ts` has for the action. */
  #checkDocumented(
    method: string,
    path: string,
    { status, text, type }: { status: number; text: string; type: string },
  ): void {
    if (status >= 400) {
      assert.match(type, /^application\/problem\+json/);
      problem.parse(JSON.parse(text));
      return;
    }
    const segments = (path.split('?')[0] ?? '').split('/');
    this.#endpoints ??= adminEndpoints(this.options);
    const served = this.#endpoints.find((one) => {
      const wanted = one.path.split('/');
      return (
        one.method === method.toLowerCase() &&
        wanted.length === segments.length &&
        wanted.every((word, index) => word.startsWith(':') || word === segments[index])
      );
    });
    answers[served?.action ?? '']?.parse(JSON.parse(text));
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function recordingLogger(lines: string[], context: object): Logger {
  const write = (level: string) => (fields: object, message: string) => {
    lines.push(JSON.stringify({ level, ...context, ...fields, message }, withErrors));
  };
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: (fields) => recordingLogger(lines, { ...context, ...fields }),
  };
}

function withErrors(_key: string, value: unknown): unknown {
  return value instanceof Error
    ? { message: value.message, stack: value.stack, cause: value.cause }
    : value;
}

function jsonObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

/** A field of an answer that is to be an object. */
export function objectIn(body: unknown, name: string): Record<string, unknown> {
  assert.ok(typeof body === 'object' && body !== null && name in body, JSON.stringify(body));
  const value: unknown = Object.entries(body).find(([key]) => key === name)?.[1];
  assert.ok(typeof value === 'object' && value !== null);
  return { ...value };
}
