import { z } from 'zod';

/**
 * An object of a record that is read, changed in part and written again: fields that this version does not know are
 * neither damage nor lost by that. The rule, and what is read without them: `docs/decisions.md`, "Fields that a process
 * does not know".
 */
export function storedObject<Shape extends z.ZodRawShape>(
  shape: Shape,
): z.ZodType<z.infer<z.ZodObject<Shape>>> {
  const known: z.ZodType<z.infer<z.ZodObject<Shape>>> = z.object(shape).loose();
  return known;
}
