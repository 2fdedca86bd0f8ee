//! The gradient of a batch's loss, step by step from the last to the first.
//!
//! Comes in: examples, and the variables that the network stands on. Goes out: the loss, and the gradient of each variable as flat f32. The network is
//! cut into steps (what enters the tower, each of its blocks, projector and pool, each block of the decoder, norm with loss) that are joined by values without a
//! graph; each step's backward pass is a vector-Jacobian product of its own. With checkpointing only the values between steps live through the
//! forward pass, and a step is computed again when its turn comes (Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016); without, its graph is kept.
//! Steps on which no variable acts cost no gradient at all. Nothing is updated here.

use crate::error::{Error, Result};
use crate::network::{Example, Network};
use crate::ops::{self, Label};
use candle_core::{DType, Tensor, Var};

/// How a gradient is computed.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Steps are computed again on the way back, so that only what lies between them is kept.
    pub checkpointing: bool,
    /// Features of all frames of the batch (frames, grid², channels), as [`crate::vision::VisionTower::features`] gives them: the tower is not run.
    pub features: Option<Tensor>,
}

/// The loss of a batch and what it says to the variables.
#[derive(Clone, Debug)]
pub struct Gradient {
    /// Weighted sum of the losses of its targets.
    pub loss: f64,
    /// Sum of the weights.
    pub weight: f64,
    /// Gradient of the sum, one flat vector per variable; zeros for one that does not act.
    pub grads: Vec<Vec<f32>>,
}

/// What one step hands to the next: no graph hangs on it.
#[derive(Clone)]
struct Value {
    id: usize,
    data: Tensor,
    /// Some variable acts on it, so that its gradient is wanted.
    moves: bool,
}

impl Value {
    /// The beginning of a graph, with a gradient where one is wanted.
    fn leaf(&self) -> Result<Tensor> {
        Ok(if self.moves { Var::from_tensor(&self.data)?.into_inner() } else { self.data.clone() })
    }
}

type Function<'a> = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + 'a>;

/// What is left of a step until its turn comes.
enum Rest<'a> {
    /// The beginnings and the end of its graph.
    Graph(Vec<Tensor>, Tensor),
    /// What it takes to compute it again.
    Inputs(Vec<Value>, Function<'a>),
}

struct Step<'a> {
    /// Of each input, whose gradient is wanted.
    inputs: Vec<Option<usize>>,
    output: usize,
    rest: Rest<'a>,
}

/// The steps of one forward pass on which variables act.
struct Tape<'a> {
    checkpointing: bool,
    values: usize,
    steps: Vec<Step<'a>>,
}

impl<'a> Tape<'a> {
    fn value(&mut self, data: &Tensor, moves: bool) -> Value {
        self.values += 1;
        Value { id: self.values - 1, data: data.detach(), moves }
    }

    /// Runs a step.
    fn run<F>(&mut self, inputs: Vec<Value>, function: F) -> Result<Value>
    where
        F: Fn(&[Tensor]) -> Result<Tensor> + 'a,
    {
        let leaves = match self.checkpointing {
            true => inputs.iter().map(|x| x.data.clone()).collect(),
            false => inputs.iter().map(Value::leaf).collect::<Result<Vec<_>>>()?,
        };
        let out = function(&leaves)?;
        let moves = out.track_op() || inputs.iter().any(|x| x.moves);
        let value = self.value(&out, moves);
        if moves {
            let wanted = inputs.iter().map(|x| x.moves.then_some(x.id)).collect();
            let rest = match self.checkpointing {
                true => Rest::Inputs(inputs, Box::new(function)),
                false => Rest::Graph(leaves, out),
            };
            self.steps.push(Step { inputs: wanted, output: value.id, rest });
        }
        Ok(value)
    }

    /// Goes back through all steps from the gradients `wanted` of some values; returns those of all values that no step made.
    fn back(mut self, mut wanted: Vec<Option<Tensor>>, flat: &mut Flat) -> Result<Vec<Option<Tensor>>> {
        while let Some(Step { inputs, output, rest }) = self.steps.pop() {
            let Some(upstream) = wanted[output].take() else { continue };
            let (leaves, out) = match rest {
                Rest::Graph(leaves, out) => (leaves, out),
                Rest::Inputs(values, function) => {
                    let leaves = values.iter().map(Value::leaf).collect::<Result<Vec<_>>>()?;
                    drop(values);
                    let out = function(&leaves)?;
                    (leaves, out)
                }
            };
            let mut grads = (&out * &upstream)?.sum_all()?.backward()?;
            drop((out, upstream));
            flat.collect(&mut grads)?;
            for (leaf, id) in leaves.iter().zip(inputs) {
                let (Some(id), Some(grad)) = (id, grads.remove(leaf)) else { continue };
                wanted[id] = Some(match wanted[id].take() {
                    Some(known) => (known + grad)?.detach(),
                    None => grad.detach(),
                });
            }
        }
        Ok(wanted)
    }
}

/// Gradients of variables, added up in f32.
struct Flat<'a> {
    vars: &'a [Var],
    grads: Vec<Vec<f32>>,
}

impl Flat<'_> {
    /// Takes the variables' gradients out of a store.
    fn collect(&mut self, store: &mut candle_core::backprop::GradStore) -> Result<()> {
        for (var, sum) in self.vars.iter().zip(&mut self.grads) {
            let Some(grad) = store.remove(var) else { continue };
            let grad = grad.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            match sum.is_empty() {
                true => *sum = grad,
                false => sum.iter_mut().zip(grad).for_each(|(sum, g)| *sum += g),
            }
        }
        Ok(())
    }

    /// Adds the gradient of looked-up rows (ids, hidden) to that of their table, row after row.
    fn scatter(&mut self, table: &Tensor, ids: &[u32], rows: &Tensor) -> Result<()> {
        let Some(at) = self.vars.iter().position(|var| var.id() == table.id()) else { return Ok(()) };
        let hidden = rows.dim(1)?;
        let rows = rows.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let sum = &mut self.grads[at];
        sum.resize(table.elem_count(), 0.0);
        for (id, row) in ids.iter().zip(rows.chunks_exact(hidden)) {
            let into = &mut sum[*id as usize * hidden..][..hidden];
            into.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
        }
        Ok(())
    }
}

impl Network {
    /// The loss of [`Network::loss`], and its gradients for `vars`, which are those that the network was built over. In f32 both are the same numbers
    /// as `loss(examples)?.0.backward()` gives, with and without checkpointing.
    pub fn gradient(&self, examples: &[Example], vars: &[Var], pass: &Pass) -> Result<Gradient> {
        let mut plan = self.plan(examples)?;
        let labels: Vec<Label> = std::mem::take(&mut plan.labels).into_iter().flatten().collect();
        if labels.is_empty() {
            return Err(Error::Argument("a batch without a single target token has no loss".into()));
        }
        let packing = self.decoder.packing(std::mem::take(&mut plan.sequences));
        let mut tape = Tape { checkpointing: pass.checkpointing, values: 0, steps: Vec::new() };
        let features = self.seen(&mut tape, examples, pass)?;
        let embedded = self.decoder.embed(&plan.ids)?;
        let embedded = tape.value(&embedded, embedded.track_op());
        let table = embedded.id;
        let sources = std::iter::once(embedded).chain(features).collect();
        let order = &plan;
        let mut x = tape.run(sources, move |x| self.assemble(order, &x[0], x.get(1)))?;
        for index in 0..self.decoder.depth() {
            let packing = packing.clone();
            x = tape.run(vec![x], move |x| self.decoder.block(index, &x[0], &packing))?;
        }

        let leaf = x.leaf()?;
        let loss = ops::cross_entropy(&self.decoder.last_norm(&leaf)?, self.decoder.head()?, &labels)?;
        let mut flat = Flat { vars, grads: vec![Vec::new(); vars.len()] };
        let mut wanted = vec![None; tape.values];
        let mut grads = loss.backward()?;
        wanted[x.id] = grads.remove(&leaf).filter(|_| x.moves).map(|grad| grad.detach());
        flat.collect(&mut grads)?;
        drop((x, leaf, grads));
        let rows = tape.back(wanted, &mut flat)?.swap_remove(table);
        if let (Some(rows), Some(table)) = (rows, self.decoder.table()) {
            flat.scatter(table, &plan.ids, &rows)?;
        }
        for (var, grad) in vars.iter().zip(&mut flat.grads) {
            grad.resize(var.elem_count(), 0.0);
        }
        Ok(Gradient {
            loss: f64::from(loss.to_scalar::<f32>()?),
            weight: labels.iter().map(|l| f64::from(l.weight)).sum(),
            grads: flat.grads,
        })
    }

    /// The features of all that the examples show.
    fn seen<'a>(&'a self, tape: &mut Tape<'a>, examples: &[Example], pass: &Pass) -> Result<Option<Value>> {
        let Some(patches) = self.shown(examples)? else { return Ok(None) };
        if let Some(features) = &pass.features {
            let (frames, tokens, _) = features.dims3()?;
            if frames * tokens != patches.dim(0)? {
                return Err(Error::Argument(format!(
                    "features of {frames} frames came with {} rows of patches, {tokens} a frame",
                    patches.dim(0)?
                )));
            }
            return Ok(Some(tape.value(features, false)));
        }
        let packing = self.vision.packing(patches.dim(0)?);
        let patches = tape.value(&patches, false);
        let mut x = tape.run(vec![patches], move |x| self.vision.embed(&x[0]))?;
        let mut selected: Vec<Value> = Vec::new();
        for depth in 0..=self.vision.depth() {
            selected.extend(std::iter::repeat_n(x.clone(), self.vision.selected(depth)));
            if depth < self.vision.depth() {
                let packing = packing.clone();
                x = tape.run(vec![x], move |x| self.vision.block(depth, &x[0], &packing))?;
            }
        }
        tape.run(selected, move |x| self.vision.join(x)).map(Some)
    }
}

#[cfg(test)]
#[path = "backward_tests.rs"]
mod tests;
