//! Attention within a window of tokens, with a position bias that is looked up in a table.

use tch::{Kind, TchError, Tensor};

use super::SwinUnetrConfig;
use crate::model::Store;
use crate::model::layers::Linear;

/// Added to the attention between voxels of a window that shifting brought together from afar.
const APART: f64 = -100.0;
/// Windows attended at once where no gradient is wanted: enough to keep all cores busy, few enough to stay in memory.
const WINDOWS_AT_ONCE: i64 = 64;

/// Attention of several heads with a bias that depends on where two tokens lie to each other.
#[derive(Debug)]
pub(super) struct Attention {
    table: Tensor,
    /// For two tokens of a window, the row of the table.
    index: Tensor,
    qkv: Linear,
    proj: Linear,
    heads: i64,
    drop_rate: f64,
}

impl Attention {
    pub(super) fn new(
        store: &mut Store,
        name: &str,
        features: i64,
        heads: i64,
        config: &SwinUnetrConfig,
    ) -> Result<Self, TchError> {
        let window = config.window_size;
        let rows = (2 * window - 1).pow(3);
        let tokens = window.pow(3);
        let index = format!("{name}.relative_position_index");
        Ok(Self {
            table: store.normal(
                &format!("{name}.relative_position_bias_table"),
                &[rows, heads],
                0.02,
            )?,
            index: store.index(&index, &relative_positions(window), &[tokens, tokens])?,
            qkv: Linear::new(
                store,
                &format!("{name}.qkv"),
                [features, 3 * features],
                config.qkv_bias,
            )?,
            proj: Linear::new(store, &format!("{name}.proj"), [features, features], true)?,
            heads,
            drop_rate: config.attn_drop_rate,
        })
    }

    /// # Shapes
    /// `[windows, tokens, features]`, kept; labels `[windows, tokens]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        labels: Option<&Tensor>,
        training: bool,
    ) -> Result<Tensor, TchError> {
        let (windows, tokens) = (x.size()[0], x.size()[1]);
        let index = self.index.f_narrow(0, 0, tokens)?.f_narrow(1, 0, tokens)?.f_reshape([-1])?;
        let bias = self.table.f_index_select(0, &index)?.f_view([1, tokens, tokens, self.heads])?;
        let bias = bias.f_permute([0, 3, 1, 2])?.f_contiguous()?;
        if training {
            return self.some(x, &bias, labels, self.drop_rate);
        }
        let mut found = Vec::new();
        let mut start = 0;
        while start < windows {
            let length = WINDOWS_AT_ONCE.min(windows - start);
            let labels = labels.map(|l| l.f_narrow(0, start, length)).transpose()?;
            found.push(self.some(&x.f_narrow(0, start, length)?, &bias, labels.as_ref(), 0.0)?);
            start += length;
        }
        Tensor::f_cat(&found, 0)
    }

    fn some(
        &self,
        x: &Tensor,
        bias: &Tensor,
        labels: Option<&Tensor>,
        drop_rate: f64,
    ) -> Result<Tensor, TchError> {
        let shape = x.size();
        let [windows, tokens, features] = [shape[0], shape[1], shape[2]];
        let qkv = self
            .qkv
            .forward(x)?
            .f_reshape([windows, tokens, 3, self.heads, features / self.heads])?
            .f_permute([2, 0, 3, 1, 4])?;
        let [q, k, v] = [qkv.f_select(0, 0)?, qkv.f_select(0, 1)?, qkv.f_select(0, 2)?];
        let bias = match labels {
            Some(labels) => {
                let apart = labels.f_unsqueeze(1)?.f_ne_tensor(&labels.f_unsqueeze(2)?)?;
                let mask = apart.f_to_kind(Kind::Float)?.f_mul_scalar(APART)?.f_unsqueeze(1)?;
                bias.f_add(&mask)?
            }
            None => bias.shallow_clone(),
        }
        .f_to_kind(q.f_kind()?)?;
        let attended = Tensor::f_scaled_dot_product_attention(
            &q,
            &k,
            &v,
            Some(&bias),
            drop_rate,
            false,
            None,
            false,
        )?;
        let joined = attended.f_transpose(1, 2)?.f_reshape([windows, tokens, features])?;
        self.proj.forward(&joined)
    }
}

/// For any two tokens of a window, the row of the bias table: how far they lie apart along each axis.
fn relative_positions(window: i64) -> Vec<i64> {
    let span = 2 * window - 1;
    let place = |token: i64| [token / (window * window), token / window % window, token % window];
    let tokens = window.pow(3);
    let mut rows = Vec::with_capacity((tokens * tokens) as usize);
    for a in (0..tokens).map(place) {
        for b in (0..tokens).map(place) {
            let apart: [i64; 3] = std::array::from_fn(|axis| a[axis] - b[axis] + window - 1);
            rows.push((apart[0] * span + apart[1]) * span + apart[2]);
        }
    }
    rows
}
