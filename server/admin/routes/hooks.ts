import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import { type HookStage, hookStages } from '../../../backends/contract/hook.js';
import {
  type Hook,
  hookProblem,
  type HookScope,
  maxHookBytes,
} from '../../../hooks/custom/hook-store.js';
import { principalName } from '../../auth/principal.js';
import type { AdminApiOptions } from '../options.js';
import { type Call, endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { eitherOf, nothing } from './fields.js';
import { openScope, type Scoped, serverScoped } from './repositories.js';

type HookEndpointOptions = Pick<
  AdminApiOptions,
  'backend' | 'authorizer' | 'hooks' | 'hooksEnabled'
>;

/** In base64, with some room for a field name and quotes. */
const maxContentLength = Math.ceil(maxHookBytes / 3) * 4;

const content = z
  .string({ error: 'wants the program in base64' })
  .min(1, { error: 'is empty' })
  .max(maxContentLength, { error: 'is larger than 1 MiB' })
  .regex(/^[A-Za-z0-9+/]+={0,2}$/, { error: 'is no base64' })
  .transform((text) => Buffer.from(text, 'base64'))
  .superRefine((bytes, context) => {
    const problem = hookProblem(bytes);
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem });
  });

/** Hooks run as the server's own system user: they are for server administrators, also those of one repository. */
export function hookEndpoints(options: HookEndpointOptions): Endpoint[] {
  const ofRepository = async (call: Call): Promise<Scope> => {
    // Whoever may not know the repository learns nothing of it here.
    const scope = await openScope(options, call);
    requireServerAdmin(call.principal, 'hooks, which run programs on the server');
    return scope;
  };
  return [
    ...scopedEndpoints(options, { prefix: '/repositories/:repository', open: ofRepository }),
    ...scopedEndpoints(options, { prefix: '', open: ofServer }),
  ];
}

type Scope = Scoped<Exclude<HookScope, 'server'>>;

function ofServer(call: Call): Promise<Scope> {
  requireServerAdmin(call.principal, 'hooks, which run programs on the server');
  return Promise.resolve(serverScoped);
}

interface Place {
  readonly prefix: string;
  readonly open: (call: Call) => Promise<Scope>;
}

function scopedEndpoints(options: HookEndpointOptions, { prefix, open }: Place): Endpoint[] {
  const { hooks } = options;
  const list = endpoint({
    method: 'get',
    path: `${prefix}/hooks`,
    action: 'hook.list',
    input: nothing,
    run: async (call) => {
      const found = await hooks.list((await open(call)).scope);
      return { status: 200, body: { hooks: found.map(shownHook) } };
    },
  });

  const show = endpoint({
    method: 'get',
    path: `${prefix}/hooks/:stage`,
    action: 'hook.show',
    input: nothing,
    run: async (call) => {
      const { scope } = await open(call);
      const stage = stageIn(call);
      const hook = await hooks.get(scope, stage);
      if (hook === undefined) throw new QuorateError('not-found', `there is no ${stage} hook here`);
      const bytes = Buffer.from(await hooks.content(scope, stage));
      return {
        status: 200,
        body: { hook: { ...shownHook(hook), content: bytes.toString('base64') } },
      };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: `${prefix}/hooks/:stage`,
    action: 'hook.remove',
    input: nothing,
    run: async (call) => {
      const { scope, change } = await open(call);
      const stage = stageIn(call);
      await change(() => hooks.remove(scope, stage));
      return { status: 200, body: { removed: stage } };
    },
  });

  return [list, show, setEndpoint(options, { prefix, open }), remove];
}

function setEndpoint(
  { hooks, hooksEnabled, backend }: HookEndpointOptions,
  { prefix, open }: Place,
): Endpoint {
  return endpoint({
    method: 'put',
    path: `${prefix}/hooks/:stage`,
    action: 'hook.set',
    largeBody: true,
    input: z.strictObject({ content }),
    shown: ({ content: bytes }) => ({ sizeBytes: bytes.length }),
    run: async (call, { content: bytes }) => {
      const { scope, change } = await open(call);
      const stage = stageIn(call);
      if (!hooksEnabled) {
        throw new QuorateError(
          'failed-precondition',
          'hooks are off on this server (hooks.enabled)',
        );
      }
      if (!backend.capabilities.inspectsPushes) {
        throw new QuorateError(
          'failed-precondition',
          'on the directory backend hooks are git\'s own: files in the repository\'s "hooks"',
        );
      }
      const by = principalName(call.principal);
      const hook = await change(() => hooks.set(scope, stage, { content: bytes, by }));
      call.note({ version: hook.version, digest: hook.digest });
      return { status: hook.version === 1 ? 201 : 200, body: { hook: shownHook(hook) } };
    },
  });
}

function stageIn(call: Call): HookStage {
  const given = call.param('stage');
  const stage = hookStages.find((known) => known === given);
  if (stage !== undefined) return stage;
  const problem = `has to be ${eitherOf(hookStages)}`;
  throw new QuorateError('invalid-argument', `stage: ${problem}`, {
    details: { fields: [{ path: 'stage', problem }] },
  });
}

function shownHook({ atMs, history, ...hook }: Hook): object {
  return {
    ...hook,
    at: new Date(atMs).toISOString(),
    history: history.map(({ atMs: earlierMs, ...earlier }) => ({
      ...earlier,
      at: new Date(earlierMs).toISOString(),
    })),
  };
}
