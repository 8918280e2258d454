import type { PushResult } from '../../contract/backend.js';
import { keys } from '../../contract/keys.js';
import type { Repository } from '../../contract/repository.js';
import { type LocalFixture, zeroOid } from '../../local/testing/local-fixture.js';

/** The generation of its head. */
export async function committedOf(
  { coordinator }: LocalFixture,
  { id }: Repository,
): Promise<number> {
  const head = await coordinator.get(keys.head(id));
  return Number(JSON.parse(new TextDecoder().decode(head?.value)).generation);
}

/** A new repository, and a push of its first commit. */
export async function pushOne(
  local: LocalFixture,
  name: string,
): Promise<{ readonly repository: Repository; readonly tip: string; readonly result: PushResult }> {
  const repository = await local.create(name);
  const tip = await local.commit(name);
  const result = await local.push(repository, [
    { ref: 'refs/heads/main', oldOid: zeroOid, newOid: tip },
  ]);
  return { repository, tip, result };
}
