import type { History } from './history.js';
import type { NameObserver } from './name-observer.js';

/** Who asked by name got the repository that had it then: not the one before, nor the one after. */
export function checkNames(
  { named }: History,
  names: NameObserver,
  tell: (text: string) => void,
): void {
  for (const operation of named) {
    const { kind, name, startMs, endMs } = operation;
    const when = `asked at ${startMs.toFixed(1)}`;
    if (kind === 'lookup' && !names.wasAt(name, operation.found, startMs, endMs)) {
      tell(`${name}, ${when}, led to ${operation.found ?? 'nothing'}, where it did not lead then`);
    }
    if (kind === 'create' && !names.wasAt(name, operation.made, startMs, endMs)) {
      tell(`${name}, ${when}, was said to be made as ${operation.made}, and was not`);
    }
    if (kind === 'delete' && names.wasAt(name, operation.repositoryId, endMs, Infinity)) {
      tell(`${name}, ${when}, was said to be deleted, and leads to ${operation.repositoryId}`);
    }
  }
}
