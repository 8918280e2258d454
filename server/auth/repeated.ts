import { asQuorateError } from '../../backends/contract/errors.js';

/** A member of etcd that hangs costs a second or two each time; a start that gets nowhere is to end, and say why. */
const maxTries = 8;

/** What may be done twice is done again while the coordinator's answer is lost (`outcome-unknown`), a few times. */
export async function repeated<T>(act: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await act();
    } catch (error) {
      if (tries === maxTries || asQuorateError(error).code !== 'outcome-unknown') throw error;
    }
  }
}
