import type { Coordinator, KeyValue } from '../../backends/contract/coordinator.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';
import { type Rule, ruleFields, type RuleFields } from './rule.js';

/** Rules of one repository by its id, or of the whole server. */
export type RuleScope = { readonly repositoryId: string } | 'server';

/**
 * Branch rules in the coordinator. What is put is in force for every push that is judged afterwards. Errors:
 * `not-found`, `resource-exhausted` (100 rules), `aborted` (others change the same rule), `data-corrupt`.
 */
export interface RuleStore {
  /** In name order. */
  list(scope: RuleScope): Promise<readonly Rule[]>;
  /** Replaces a rule of the same name as a whole; says whether there was one. */
  put(scope: RuleScope, name: string, fields: RuleFields): Promise<{ readonly replaced: boolean }>;
  remove(scope: RuleScope, name: string): Promise<void>;
  /** When a repository's id is to change, which is so on the directory backend only. They stay where they are, too. */
  copy(from: string, to: string): Promise<void>;
  /** Those of a repository that is gone. */
  removeAll(repositoryId: string): Promise<void>;
  /** Everything that a push to this repository is judged by: the server's, then the repository's. */
  inForce(repositoryId: string): Promise<readonly Rule[]>;
}

/** Per scope. Each is looked at for each ref of a push. */
const maxRules = 100;

export function createRuleStore(coordinator: Coordinator): RuleStore {
  const list = async (scope: RuleScope): Promise<readonly Rule[]> => {
    const prefix = prefixOf(scope);
    const { entries } = await coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) });
    return entries.map((entry) => decodeRule(entry, prefix));
  };

  return {
    list,
    async put(scope, name, fields) {
      const prefix = prefixOf(scope);
      const { entries } = await coordinator.range(prefix, {
        rangeEnd: prefixEnd(prefix),
        keysOnly: true,
      });
      const key = `${prefix}${name}`;
      const current = entries.find((entry) => entry.key === key);
      if (current === undefined && entries.length >= maxRules) {
        throw new QuorateError('resource-exhausted', `at most ${maxRules} rules can be set here`);
      }
      const { succeeded } = await coordinator.transaction({
        binding: true,
        compares: [{ key, target: 'modRevision', op: '=', operand: current?.modRevision ?? 0 }],
        success: [{ type: 'put', key, value: Buffer.from(JSON.stringify(fields)) }],
        failure: [],
      });
      if (!succeeded) throw new QuorateError('aborted', `rule ${name} was changed just now`);
      return { replaced: current !== undefined };
    },
    async remove(scope, name) {
      const key = `${prefixOf(scope)}${name}`;
      const { succeeded } = await coordinator.transaction({
        binding: true,
        compares: [{ key, target: 'version', op: '>', operand: 0 }],
        success: [{ type: 'delete', key }],
        failure: [],
      });
      if (!succeeded) throw new QuorateError('not-found', `there is no rule ${name} here`);
    },
    async copy(from, to) {
      const [source, target] = [keys.repositoryRules(from), keys.repositoryRules(to)];
      const { entries } = await coordinator.range(source, { rangeEnd: prefixEnd(source) });
      // At most 100 puts: within the 128 operations of a transaction.
      await coordinator.transaction({
        compares: [],
        success: entries.map(({ key, value }) => ({
          type: 'put',
          key: `${target}${key.slice(source.length)}`,
          value,
        })),
        failure: [],
      });
    },
    async removeAll(repositoryId) {
      const key = prefixOf({ repositoryId });
      await coordinator.transaction({
        compares: [],
        success: [{ type: 'delete', key, rangeEnd: prefixEnd(key) }],
        failure: [],
      });
    },
    async inForce(repositoryId) {
      const [server, own] = await Promise.all([list('server'), list({ repositoryId })]);
      return [...server, ...own];
    },
  };
}

function prefixOf(scope: RuleScope): string {
  return scope === 'server' ? keys.serverRules : keys.repositoryRules(scope.repositoryId);
}

/** A rule that cannot be read stops the push: what it was to protect is not known. */
function decodeRule(entry: KeyValue, prefix: string): Rule {
  const name = entry.key.slice(prefix.length);
  try {
    const json: unknown = JSON.parse(Buffer.from(entry.value).toString('utf8'));
    return { name, ...ruleFields.parse(json) };
  } catch (cause) {
    throw new QuorateError('data-corrupt', `the record of rule ${name} is damaged`, { cause });
  }
}
