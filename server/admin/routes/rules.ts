import { asQuorateError, QuorateError } from '../../../backends/contract/errors.js';
import { contentFields, type Rule, ruleFields, ruleName } from '../../../hooks/rules/rule.js';
import type { RuleScope } from '../../../hooks/rules/rule-store.js';
import type { AdminApiOptions } from '../options.js';
import { type Call, endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { nothing } from './fields.js';
import { openScope, type Scoped, serverScoped } from './repositories.js';

type RuleOptions = Pick<
  AdminApiOptions,
  'backend' | 'authorizer' | 'rules' | 'directory' | 'issuers'
>;

/** Branch rules: of a repository, for those who administer it; of the whole server, for its administrators. */
export function ruleEndpoints(options: RuleOptions): Endpoint[] {
  const ofRepository = (call: Call): Promise<Scope> => openScope(options, call);
  return [
    ...scopedEndpoints(options, { prefix: '/repositories/:repository', open: ofRepository }),
    ...scopedEndpoints(options, { prefix: '', open: ofServer }),
  ];
}

type Scope = Scoped<Exclude<RuleScope, 'server'>>;

function ofServer(call: Call): Promise<Scope> {
  requireServerAdmin(call.principal, 'rules for all repositories');
  return Promise.resolve(serverScoped);
}

function scopedEndpoints(
  options: RuleOptions,
  { prefix, open }: { readonly prefix: string; readonly open: (call: Call) => Promise<Scope> },
): Endpoint[] {
  const { rules, backend } = options;
  const list = endpoint({
    method: 'get',
    path: `${prefix}/rules`,
    action: 'rule.list',
    input: nothing,
    run: async (call) => {
      const found = await rules.list((await open(call)).scope);
      return { status: 200, body: { rules: found } };
    },
  });

  const set = endpoint({
    method: 'put',
    path: `${prefix}/rules/:rule`,
    action: 'rule.set',
    input: ruleFields,
    run: async (call, fields) => {
      const { scope, change } = await open(call);
      const name = nameIn(call);
      const rule: Rule = { name, ...fields };
      if (!backend.capabilities.inspectsPushes) refuseWhatIsNotJudged(rule);
      await requireNamed(options, 'push', rule.push ?? []);
      await requireNamed(options, 'exempt', rule.exempt);
      const { replaced } = await change(() => rules.put(scope, name, fields));
      return { status: replaced ? 200 : 201, body: { rule } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: `${prefix}/rules/:rule`,
    action: 'rule.remove',
    input: nothing,
    run: async (call) => {
      const { scope, change } = await open(call);
      const name = nameIn(call);
      await change(() => rules.remove(scope, name));
      return { status: 200, body: { removed: name } };
    },
  });

  return [list, set, remove];
}

function nameIn(call: Call): string {
  const parsed = ruleName.safeParse(call.param('rule'));
  if (parsed.success) return parsed.data;
  const problem = parsed.error.issues[0]?.message ?? 'is no name of a rule';
  throw invalidField('name', problem);
}

/**
 * A name of nobody would be let in, or left alone, as soon as somebody gets it. Names of users and groups are never
 * given again, so that what is found here stays true. A deploy key, which is no name to be mistaken in, may come later.
 */
async function requireNamed(
  { directory, issuers }: RuleOptions,
  field: 'push' | 'exempt',
  subjects: readonly string[],
): Promise<void> {
  const named = subjects.filter((subject) => !subject.startsWith('deploy-key:'));
  const known = named.some((subject) => subject.startsWith('oidc:')) ? await issuers.list() : [];
  for (const subject of named) {
    const [, entry] = /^oidc:(.*)/.exec(subject) ?? [];
    try {
      if (entry === undefined) await directory.requireSubject(subject);
      else if (!known.some(({ name }) => name === entry)) {
        throw new QuorateError('not-found', `there is no issuer ${entry}`);
      }
    } catch (error) {
      const { code, message } = asQuorateError(error);
      if (code !== 'not-found') throw error;
      throw new QuorateError(code, `${field}: ${message}`);
    }
  }
}

/** A rule that would not be kept is not taken. */
function refuseWhatIsNotJudged(rule: Rule): void {
  const [field] = [...contentFields(rule), ...(rule.noForcePush ? ['noForcePush'] : [])];
  if (field === undefined) return;
  throw invalidField(
    field,
    'cannot be judged by the directory backend, where git takes the push; use a hook of the repository, or its settings',
  );
}

function invalidField(path: string, problem: string): QuorateError {
  return new QuorateError('invalid-argument', `${path}: ${problem}`, {
    details: { fields: [{ path, problem }] },
  });
}
